"""Reading the files of tokenizers: bounded in size, and whatever is wrong with one is an error of one line."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glassformer import text_files
from glassformer.errors import GlassformerError, TokenizerError, one_line

MAX_BYTES = 64 << 20
"""Largest file that is read: the vocabularies of GPT-4 or Gemma take 20 to 35 MB as JSON."""


def read_bounded(file: Path) -> bytes:
    """A whole file of at most `MAX_BYTES`."""
    return text_files.read_bounded(file, TokenizerError, most=MAX_BYTES)


def read_text(file: Path) -> str:
    """`read_bounded` as text, without a byte order mark."""
    return text_files.read_text(file, TokenizerError, most=MAX_BYTES)


def read_lines(file: Path) -> list[str]:
    """The lines of a vocabulary. Only a newline ends one: a token may be any other line end that Unicode knows."""
    lines = [line.removesuffix("\r") for line in read_text(file).split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read_json(file: Path) -> dict[str, Any]:
    """`read_text` as a JSON object."""
    return text_files.read_json(file, TokenizerError, most=MAX_BYTES)


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
