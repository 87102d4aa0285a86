"""Reading tokenizers that are already there: a folder, a tokenizer.json, a SentencePiece model, a WordPiece list.

A tokenizer file may come from anywhere: it is read as data (JSON and plain lists) and bounded in size, and whatever is
wrong with one is a single line.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import tokenizers

from glassformer.errors import TokenizerError
from glassformer.processors.tokenizers.declared import Declared, Draft, read_declared, with_declared
from glassformer.processors.tokenizers.files import library_errors, not_read, read_json
from glassformer.processors.tokenizers.gpt2 import read_vocabulary_and_merges
from glassformer.processors.tokenizers.marian import is_marian, read_marian
from glassformer.processors.tokenizers.sentencepiece_files import read_sentencepiece
from glassformer.processors.tokenizers.tokenizer import Tokenizer
from glassformer.processors.tokenizers.wordpiece import read_wordpiece

MAX_ID = 1 << 22  # the library makes tables as long as the largest id, and ends the process where it cannot
MAX_TEXT = 10_000  # characters in an expression or a replacement
_PROBE = "\U0010fffd a\n"  # no vocabulary has all of it


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer from a folder or a file, with what the other files of its folder declare (`declared.py`).

    Args:
        path: a folder with `tokenizer.json` (preferred), `source.spm` + `target.spm` + `vocab.json` (Marian: the one of
            what it writes), a SentencePiece model, `vocab.json` + `merges.txt` or `vocab.txt`; or one of these files.

    Raises:
        TokenizerError: nothing readable is there; it is damaged, cut short or larger than 64 MiB; or it was made for a
            class of tokenizers that cuts text in a way that is not known here.
        MissingExtraError: a SentencePiece model without the extra `sentencepiece`.
    """
    path = Path(path)
    if not path.exists():
        raise TokenizerError(f"{path}: there is no such file or folder; give a model folder or a tokenizer.json")
    file = _find_in(path) if path.is_dir() else path
    declared = read_declared(file.parent)
    return with_declared(_read(file, declared), declared, file)


def load_source_tokenizer_of(folder: Path) -> Tokenizer | None:
    """The tokenizer of what a model reads, where its folder holds two in Marian's form; else None."""
    if (folder / "tokenizer.json").is_file() or not is_marian(folder):
        return None
    declared = read_declared(folder)
    file = folder / "source.spm"
    return with_declared(read_marian(file, declared), declared, file)


def _read(file: Path, declared: Declared) -> Draft:
    if file.suffix == ".spm":
        return read_marian(file, declared)
    if file.suffix == ".model":
        return read_sentencepiece(file, declared)
    if file.suffix == ".txt" and file.name != "merges.txt":
        return read_wordpiece(file, declared)
    if file.suffix == ".json" and file.name not in ("vocab.json", "encoder.json"):
        return _read_tokenizer_json(file)
    return read_vocabulary_and_merges(file.parent, declared)


def _find_in(folder: Path) -> Path:
    if (folder / "tokenizer.json").is_file():
        return folder / "tokenizer.json"
    if is_marian(folder):
        return folder / "target.spm"
    for name in ("tokenizer.model", "spiece.model", "vocab.json", "encoder.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    if models := sorted(folder.glob("*.model")):
        return models[0]
    if below := sorted(folder.glob("*/tokenizer.json")):
        raise TokenizerError(f"{folder}: holds no tokenizer.json; did you mean {below[0].parent}?")
    for name in ("tekken.json", *(file.name for file in folder.glob("*.tiktoken"))):
        if (folder / name).is_file():
            raise not_read(folder, name)
    raise TokenizerError(f"{folder}: holds no tokenizer.json, *.model, vocab.json or vocab.txt; is it a model folder?")


def _read_tokenizer_json(file: Path) -> Draft:
    data = read_json(file)
    if not isinstance(data.get("model"), dict):
        raise TokenizerError(f'{file}: has no "model"; a tokenizer.json of the `tokenizers` library is needed')
    return Draft(library_from_json(data, file), {}, is_whole=True)


def library_from_json(data: dict[str, Any], file: Path) -> tokenizers.Tokenizer:
    """A `tokenizers.Tokenizer`; an error of the library becomes one line."""
    _check_ids(data, file)
    _check_texts(data, file)
    with library_errors(f"{file}: the tokenizers library cannot read it"):
        library = tokenizers.Tokenizer.from_str(json.dumps({**data, "padding": None, "truncation": None}))
        if library.get_vocab_size():
            library.encode(_PROBE)
    if not library.get_vocab_size():
        raise TokenizerError(f"{file}: the vocabulary is empty; fetch the file again")
    return library


def _check_ids(data: dict[str, Any], file: Path) -> None:
    vocabulary, added = data["model"].get("vocab"), data.get("added_tokens")
    numbers = list(vocabulary.values()) if isinstance(vocabulary, dict) else []
    numbers += [token.get("id") for token in added if isinstance(token, dict)] if isinstance(added, list) else []
    if bad := [i for i in numbers if type(i) is not int or not 0 <= i < MAX_ID]:
        raise TokenizerError(f"{file}: a token has the id {str(bad[0])[:40]}, where 0 to {MAX_ID - 1:,} are possible")


def _check_texts(data: dict[str, Any], file: Path) -> None:
    """Nothing long beside the vocabulary: what is put before every text, or takes the place of every letter."""
    left: list[Any] = [value for name, value in data.items() if name not in ("model", "added_tokens")]
    while left:
        part = left.pop()
        if isinstance(part, dict):
            left += [value for name, value in part.items() if name != "precompiled_charsmap"]
            if "precompiled_charsmap" in part and not _is_charsmap(part["precompiled_charsmap"]):
                raise TokenizerError(f"{file}: its precompiled_charsmap is damaged; fetch it again")
        elif isinstance(part, list):
            left += part
        elif isinstance(part, str) and len(part) > MAX_TEXT:
            raise TokenizerError(f"{file}: a rule holds {len(part):,} characters, where {MAX_TEXT:,} are possible")


def _is_charsmap(value: Any) -> bool:
    """SentencePiece's table of characters: the length of a trie, which the library does not check, the trie, texts."""
    try:
        table = base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        return False
    size = int.from_bytes(table[:4], "little")
    return len(table) > 4 and size % 4 == 0 and size <= len(table) - 4
