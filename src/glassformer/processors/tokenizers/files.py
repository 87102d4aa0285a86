"""Reading the files of tokenizers: bounded in size, and whatever is wrong with one is a single line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glassformer.errors import TokenizerError
from glassformer.text_files import JsonError, decode, parse_json

MAX_BYTES = 64 << 20
"""Largest file that is read: the vocabularies of GPT-4 or Gemma take 20 to 35 MB as JSON."""


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
    """`read_bounded` as text, without a byte order mark."""
    try:
        return decode(read_bounded(file))
    except UnicodeDecodeError as error:
        encoding = error.encoding.upper()
        raise TokenizerError(
            f"{file}: byte {error.start} is not {encoding}; the file is damaged: fetch it again"
        ) from error


def read_lines(file: Path) -> list[str]:
    """The lines of a vocabulary: they end with a newline and nothing else, for a token may be any other character that
    Unicode counts as the end of a line (U+2028, U+0085, form feed)."""
    lines = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_json(file: Path) -> dict[str, Any]:
    """`read_text` as a JSON object."""
    try:
        data = parse_json(read_text(file))
    except JsonError as error:
        raise TokenizerError(f"{file}: not valid JSON ({error}); it is damaged or cut short: fetch it again") from None
    if not isinstance(data, dict):
        raise TokenizerError(f"{file}: holds a {type(data).__name__} where an object is needed; is it the right file?")
    return data
