"""Reading the files of tokenizers: bounded in size, and whatever is wrong with one is an error of one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glassformer.errors import GlassformerError, TokenizerError, one_line
from glassformer.text_files import JsonError, decode, parse_json

MAX_BYTES = 64 << 20
"""Largest file that is read: the vocabularies of GPT-4 or Gemma take 20 to 35 MB as JSON."""


def read_bounded(file: Path) -> bytes:
    """A whole file of at most `MAX_BYTES`."""
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
        where = f"byte {error.start} is not {error.encoding.upper()}"
        raise TokenizerError(f"{file}: {where}; the file is damaged: fetch it again") from error


def read_lines(file: Path) -> list[str]:
    """The lines of a vocabulary. Only a newline ends one: a token may be any other line end that Unicode knows."""
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


def not_read(path: Path, what: str) -> TokenizerError:
    """The error for a tokenizer that is known but not read, with the way around it."""
    advice = "save it with one (transformers: AutoTokenizer ... save_pretrained)"
    return TokenizerError(f"{path}: {what} with no tokenizer.json is not read here; {advice}")


@contextlib.contextmanager
def library_errors(failure: str) -> Iterator[None]:
    """Errors of the `tokenizers` library (bare Exceptions, and panics, which are BaseExceptions) as `TokenizerError`.

    Args:
        failure: what failed; the reason and the next step are added.
    """
    try:
        yield
    except (GlassformerError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:
        raise TokenizerError(f"{failure} ({one_line(error, most=200)}); fetch it again") from error
