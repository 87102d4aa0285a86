"""Reading tokenizers that are already there: a folder, a tokenizer.json, a SentencePiece model, a WordPiece list.

A tokenizer file may come from anybody, so it is data and nothing else: JSON and plain lists, bounded in size, and
whatever is wrong with one is a single line.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import tokenizers

from glassformer.errors import TokenizerError
from glassformer.tokenizers.panics import library_errors
from glassformer.tokenizers.tokenizer import Tokenizer

MAX_BYTES = 64 << 20
"""Largest file that is read: the vocabularies of GPT-4 or Gemma take 20 to 35 MB as JSON."""
MAX_ID = 1 << 22
"""Largest id that is read: the `tokenizers` library makes tables as long, and ends the process where it cannot."""
MAX_TEXT = 10_000
"""Characters in an expression or a replacement."""
_PROBE = "\U0010fffd a\n"  # no vocabulary has all of it

_END_OF_TEXT = ("<|endoftext|>", "<|end_of_text|>", "</s>", "<eos>", "<|eos|>", "<|im_end|>")
_KEPT_SETTINGS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token",
                  "additional_special_tokens", "model_max_length", "padding_side", "split_special_tokens")  # fmt: skip


def load_tokenizer(path: str | os.PathLike[str]) -> Tokenizer:
    """Read a tokenizer from a folder or a file.

    Args:
        path: a folder with `tokenizer.json` (preferred), `tokenizer.model`, `vocab.json` + `merges.txt` or `vocab.txt`;
            or one of these files. `tokenizer_config.json` and `chat_template.jinja` beside it are read too.

    Raises:
        TokenizerError: nothing readable is there; it is damaged, cut short or larger than 64 MiB.
        MissingExtraError: a SentencePiece model without the extra `sentencepiece`.
    """
    path = Path(path)
    if not path.exists():
        raise TokenizerError(f"{path}: there is no such file or folder; give a model folder or a tokenizer.json")
    file = _find_in(path) if path.is_dir() else path
    if file.suffix == ".json" and file.name not in ("vocab.json", "encoder.json"):
        return _read_tokenizer_json(file)
    if file.suffix == ".model":
        from glassformer.tokenizers.sentencepiece import read_sentencepiece

        return read_sentencepiece(file)
    if file.suffix == ".txt" and file.name != "merges.txt":
        from glassformer.tokenizers.wordpiece import read_wordpiece

        return read_wordpiece(file)
    from glassformer.tokenizers.gpt2 import read_vocabulary_and_merges

    return read_vocabulary_and_merges(file.parent)


def read_bounded(file: Path) -> bytes:
    """A whole file, or one line about why not."""
    try:
        size = file.stat().st_size
        if size > MAX_BYTES:
            raise TokenizerError(f"{file}: {size / 2**20:.0f} MiB is too large for a tokenizer (64 MiB at most)")
        return file.read_bytes()
    except OSError as error:
        raise TokenizerError(f"{file}: cannot be read ({error.strerror or error}); check the path") from error


def read_text(file: Path) -> str:
    """`read_bounded` as UTF-8."""
    try:
        return read_bounded(file).decode("utf-8")
    except UnicodeDecodeError as error:
        raise TokenizerError(f"{file}: byte {error.start} is not UTF-8; the file is damaged: fetch it again") from error


def read_json(file: Path) -> dict[str, Any]:
    """`read_text` as a JSON object."""
    try:
        data = json.loads(read_text(file))
    except (ValueError, RecursionError) as error:
        where = f"at line {error.lineno}" if isinstance(error, json.JSONDecodeError) else "somewhere"
        raise TokenizerError(f"{file}: not valid JSON {where}; it is damaged or cut short: fetch it again") from error
    if not isinstance(data, dict):
        raise TokenizerError(f"{file}: holds a {type(data).__name__} where an object is needed; is it the right file?")
    return data


def _find_in(folder: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer.model", "vocab.json", "encoder.json", "vocab.txt"):
        if (folder / name).is_file():
            return folder / name
    for pattern in ("*.model", "*/tokenizer.json"):
        if found := sorted(folder.glob(pattern)):
            if pattern == "*.model":
                return found[0]
            raise TokenizerError(f"{folder}: holds no tokenizer.json; did you mean {found[0].parent}?")
    raise TokenizerError(f"{folder}: holds no tokenizer.json, *.model, vocab.json or vocab.txt; is it a model folder?")


def _read_tokenizer_json(file: Path) -> Tokenizer:
    data = read_json(file)
    if not isinstance(data.get("model"), dict):
        raise TokenizerError(f'{file}: has no "model"; a tokenizer.json of the `tokenizers` library is needed')
    library = library_from_json(data, file)
    settings, chat_template = _settings_beside(file)
    special = [token.content for token in library.get_added_tokens_decoder().values() if token.special]
    end = settings.get("eos_token") or next((name for name in _END_OF_TEXT if name in special), None)
    return Tokenizer(library, end_of_text=end, chat_template=chat_template, settings=settings)


def library_from_json(data: dict[str, Any], file: Path) -> tokenizers.Tokenizer:
    """A `tokenizers.Tokenizer`, with whatever the library says against it in one line."""
    _check_ids(data, file)
    _check_texts(data, file)
    with library_errors(f"{file}: the tokenizers library cannot read it ({{}}); fetch it again"):
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
    """SentencePiece's table of characters: the length of a trie, the trie, and texts. The library takes the length at
    its word."""
    try:
        table = base64.b64decode(value, validate=True)
    except (ValueError, TypeError):
        return False
    size = int.from_bytes(table[:4], "little")
    return len(table) > 4 and size % 4 == 0 and size <= len(table) - 4


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(entry, str) for entry in value)


def _settings_beside(file: Path) -> tuple[dict[str, Any], str | None]:
    """What `tokenizer_config.json` and `chat_template.jinja` in the same folder say, when they are there."""
    config = read_json(beside) if (beside := file.with_name("tokenizer_config.json")).is_file() else {}
    settings = {}
    for key in _KEPT_SETTINGS:
        value = config.get(key)
        if isinstance(value, dict):  # an AddedToken written out
            value = value.get("content")
        if isinstance(value, (str, int, float)) or (key == "additional_special_tokens" and _is_texts(value)):
            settings[key] = value
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        template = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}.get("default")
    if (jinja := file.with_name("chat_template.jinja")).is_file():
        template = read_text(jinja)
    return settings, template if isinstance(template, str) else None
