"""Files of lines and files of JSON objects, a line or an object at a time, with the place of each for messages.

    .jsonl, .ndjson   one object a line
    .json             an array of objects, or one object a line (many programs save those under this ending)

Endings may be in capitals; byte order marks and UTF-16 are read (`text_files`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from glassformer.errors import DataError
from glassformer.text_files import JsonError, open_utf8, parse_json

JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
OTHER_FIELD = "name another with data.text_field=NAME, or --text-field NAME of glassformer data"
MOST_BYTES = 1 << 29
"""Largest .json array, and longest line of a text: both are read at once."""


_SFT = "learn the answers with task.kind=sft (glassformer tune sft); glassformer data show FILE shows what is trained"
OTHER_FORMS = {  # fields of rows that other tasks learn from -> what they are, and what can be done with them
    ("messages",): ("a chat", _SFT),
    ("conversations",): ("a chat", _SFT),
    ("chosen", "rejected"): ("a preference", "learn from it with task.kind=dpo or task.kind=reward"),
    ("prompt", "completion"): ("a prompt and its completion", _SFT),
    ("instruction", "output"): ("an instruction and its answer", _SFT),
    ("prompt",): ("a prompt alone", "learn from a reward function with task.kind=grpo or ppo and task.reward=..."),
}


def missing_field(where: str, row: dict[str, Any], name: str, advice: str = OTHER_FIELD) -> str:
    """The line for a row without a field: what the row is instead, where it is of a known form, and what to do."""
    for fields, (what, way) in OTHER_FORMS.items():
        if all(field in row for field in fields):
            return f"{where}: {' and '.join(map(repr, fields))} instead of {name!r}: {what}; {way}"
    return f"{where}: the field {name!r} is missing; it has: {', '.join(row) or 'none'}; {advice}"


def holds_json(path: Path) -> bool:
    """Whether a file is one of JSON objects, by its name."""
    return path.suffix.lower() in JSON_SUFFIXES


def open_bytes(path: Path) -> tuple[BinaryIO, int]:
    """`open_utf8`, its refusal in one line."""
    try:
        return open_utf8(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def decode_utf8(data: bytes, where: str, name: str, offset: int = 0, of: str = "") -> str:
    r"""UTF-8 bytes as text with "\n" line ends.

    Args:
        where, name: the place and the file's name, for messages. offset, of: what bytes are counted from.

    Raises:
        DataError: they hold a NUL byte, or are not UTF-8.
    """
    if (at := data.find(b"\0")) >= 0:
        raise DataError(
            f"{where}: binary (a NUL byte at byte {offset + at:,}{of}), or UTF-16 without a byte order mark; "
            "give plain UTF-8 text"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: not UTF-8 at byte {offset + error.start:,} (0x{data[error.start]:02x}){of}; if it is Latin-1, "
            f"run iconv -f LATIN1 -t UTF-8 {name} > utf8-{name}"
        ) from None
    return text.replace("\r\n", "\n") if "\r" in text else text


def numbered_lines(path: Path, longest: int = MOST_BYTES) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its end) of every line of a file, its length bounded before it is read.

    Raises:
        DataError: a line is longer than `longest` bytes, or no UTF-8; the file cannot be read.
    """
    file, _ = open_bytes(path)
    with file:
        number = 0
        while line := file.readline(longest + 1):
            number += 1
            if len(line) > longest:
                raise DataError(f"{path}:{number}: longer than {longest:,} bytes; cut it into several")
            yield number, decode_utf8(line, f"{path}:{number}", path.name, of=" of the line").rstrip("\r\n")


def json_rows(path: Path, longest: int = MOST_BYTES) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """(place, number from 1, object) of every object in a file of JSON objects.

    Raises:
        DataError: the file is damaged, too large, or holds something else; file and line, or entry, are named.
    """
    if path.suffix.lower() == ".json" and _begins_with_bracket(path):
        rows: Iterator[tuple[str, int, Any]] = _entries(path)
    else:
        rows = _parsed_lines(path, longest)
    for where, number, row in rows:
        if not isinstance(row, dict):
            hint = "; an array of objects is read from a .json file" if isinstance(row, list) else ""
            raise DataError(f"{where}: a JSON {type(row).__name__}, not an object with named fields{hint}")
        yield where, number, row


def _parsed_lines(path: Path, longest: int) -> Iterator[tuple[str, int, Any]]:
    for number, line in numbered_lines(path, longest):
        if not line.strip():
            continue
        try:
            yield f"{path}:{number}", number, parse_json(line)
        except JsonError as error:
            form = "a .json file holds an array of objects, or one object a line: " if path.suffix[-1] in "nN" else ""
            raise DataError(f"{path}:{number}: not JSON ({error}); {form}mend the line") from None


def _entries(path: Path) -> Iterator[tuple[str, int, Any]]:
    file, offset = open_bytes(path)
    with file:
        if len(content := file.read(MOST_BYTES + 1)) > MOST_BYTES:
            raise DataError(
                f"{path}: an array of more than {MOST_BYTES:,} bytes; turn it into lines: jq -c '.[]' {path.name} > "
                f"{path.stem}.jsonl"
            )
    try:
        rows = parse_json(decode_utf8(content, str(path), path.name, offset))
    except JsonError as error:
        raise DataError(f"{path}: not JSON ({error}); mend it") from None
    for number, row in enumerate(rows, 1):
        yield f"{path}, entry {number:,}", number, row


def _begins_with_bracket(path: Path) -> bool:
    file, _ = open_bytes(path)
    with file:
        while (byte := file.read(1)).isspace():
            pass
    return byte == b"["
