"""Text files as people save them: with a byte order mark, in UTF-16; and JSON, every fault of it in a few words.

Windows tools (PowerShell, Notepad, Excel) put a byte order mark before UTF-8, or write UTF-16 with one. The mark states
which of them it is, so nothing is guessed: without one a file is UTF-8.
"""

from __future__ import annotations

import codecs
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from glassformer.errors import DataError, GlassformerError

BLOCK_BYTES = 1 << 20
_MARKS = (  # the mark of UTF-16-LE begins that of UTF-32-LE
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


class JsonError(ValueError):
    """A text that is no JSON, or JSON that no computer should read; the message is the reason alone."""


def decode(content: bytes) -> str:
    """A whole file's bytes as text, without the byte order mark.

    Raises:
        UnicodeDecodeError: they are not in the encoding of the mark, or not UTF-8.

    >>> decode(b"\\xef\\xbb\\xbfan ox"), decode("an ox".encode("utf-16"))
    ('an ox', 'an ox')
    """
    encoding, skipped = _encoding_of(content[:4])
    return content[skipped:].decode(encoding)


def parse_json(text: str) -> Any:
    """`json.loads`, with one kind of error for everything that can be wrong with the text.

    Raises:
        JsonError: no JSON, nested too deeply, or a number of thousands of digits.
    """
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}" if error.lineno > 1 else f"column {error.colno}"
        raise JsonError(f"{error.msg}, {where}") from None
    except RecursionError:
        raise JsonError("nested too deeply") from None
    except ValueError:  # Python's own limit for the digits of an integer
        raise JsonError("a number of too many digits") from None


def read_bounded(path: Path, error: type[GlassformerError], *, most: int) -> bytes:
    """A whole file; `error`, in one line, if it is missing, cannot be read, or has more than `most` bytes."""
    try:
        if path.stat().st_size > most:
            raise error(f"{path}: larger than {most >> 20} MiB, the most that is read; is it the right file?")
        return path.read_bytes()
    except FileNotFoundError:
        raise error(f"{path}: missing; this is not a model folder, or it is incomplete") from None
    except OSError as problem:
        raise error(f"{path}: cannot be read ({problem.strerror or problem}); check the path") from problem


def read_text(path: Path, error: type[GlassformerError], *, most: int) -> str:
    """`read_bounded` as text, without a byte order mark."""
    try:
        return decode(read_bounded(path, error, most=most))
    except UnicodeDecodeError as problem:
        where = f"byte {problem.start} is not {problem.encoding.upper()}"
        raise error(f"{path}: {where}; the file is damaged: fetch it again") from None


def read_json(path: Path, error: type[GlassformerError], *, most: int) -> dict[str, Any]:
    """`read_text` as a JSON object."""
    try:
        data = parse_json(read_text(path, error, most=most))
    except JsonError as problem:
        raise error(f"{path}: not valid JSON ({problem}); it is damaged or cut short: fetch it again") from None
    if not isinstance(data, dict):
        raise error(f"{path}: a JSON object is expected, not {type(data).__name__}; is it the right file?")
    return data


def open_utf8(path: Path) -> tuple[BinaryIO, int]:
    """A file open for reading as UTF-8 bytes, whatever encoding its byte order mark names; and the length of the mark.

    Raises:
        OSError: it cannot be opened. DataError, while reading: its UTF-16 or UTF-32 is damaged.
    """
    file = open(path, "rb")  # noqa: SIM115  (the caller's to close)
    encoding, skipped = _encoding_of(file.read(4))
    file.seek(skipped)
    return (file if encoding == "utf-8" else io.BufferedReader(_Recoded(path, file, encoding))), skipped


def utf8_bytes(path: Path) -> int:
    r"""Bytes of a file's text in UTF-8: without its byte order mark, and with "\n" where it has "\r\n"."""
    file, _ = open_utf8(path)
    with file:
        return sum(len(block) - block.count(b"\r\n") for block in _blocks(file))


def _encoding_of(start: bytes) -> tuple[str, int]:
    """(encoding, bytes of its mark) of a file that begins with these four bytes."""
    return next(((name, len(mark)) for mark, name in _MARKS if start.startswith(mark)), ("utf-8", 0))


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    r"""The content of a file in blocks, none of which ends between "\r" and "\n"."""
    while block := file.read(BLOCK_BYTES):
        yield block + (file.read(1) if block.endswith(b"\r") else b"")


class _Recoded(io.RawIOBase):
    """A file in another encoding, read as UTF-8."""

    def __init__(self, path: os.PathLike[str], file: BinaryIO, encoding: str):
        self._path, self._file, self._encoding = path, file, encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._ready = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            block = self._file.read(io.DEFAULT_BUFFER_SIZE)
            try:
                self._ready = self._decoder.decode(block, final=not block).encode("utf-8")
            except UnicodeDecodeError as error:
                name = self._encoding.upper()
                raise DataError(f"{self._path}: damaged {name} ({error.reason}); save it again as UTF-8") from None
            if not block:
                break
        n = min(len(buffer), len(self._ready))
        buffer[:n], self._ready = self._ready[:n], self._ready[n:]
        return n

    def close(self) -> None:
        self._file.close()
        super().close()
