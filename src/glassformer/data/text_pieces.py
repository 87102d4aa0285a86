"""Pieces of text out of one file: plain text in stretches that fit in memory, a document an object of JSON, or a
molecule a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glassformer.data.json_lines import OTHER_FIELD, decode_utf8, json_rows, missing_field, numbered_lines, open_bytes
from glassformer.errors import DataError

PIECE_BYTES = 4 << 20
LONGEST_MOLECULE = 1 << 16
"""Bytes of a line of a .smi file."""


class Piece(NamedTuple):
    """A stretch of a document; `last` on its last piece."""

    text: str
    last: bool


def utf8_length(text: str) -> int:
    """Bytes of a text in UTF-8 (one scan, no copy, for plain ASCII)."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def read_text(path: Path) -> Iterator[Piece]:
    """One file as pieces of about 4 MiB that end with a line, and where a tokenizer would end a token anyway."""
    file, offset = open_bytes(path)  # `offset`: bytes of the text before `rest`
    with file:
        rest, first = b"", True
        while block := file.read(PIECE_BYTES):
            if first:
                _refuse_compressed(path, block)
            ended, first = len(block) < PIECE_BYTES, False
            block = rest + block
            cut = 0 if ended else _good_cut(block)
            if cut:
                yield Piece(decode_utf8(block[:cut], str(path), path.name, offset), False)
                offset += cut
            rest = block[cut:]
        yield Piece(decode_utf8(rest, str(path), path.name, offset), True)


def _good_cut(block: bytes) -> int:
    """Where to end a piece: after the last line break between two printed characters, where byte-level BPE
    never merges; else after any line break, else before the last whole UTF-8 character."""
    end = len(block) - 1
    for _ in range(1000):
        end = block.rfind(b"\n", 0, end)
        if end <= 0:
            break
        before = block[end - 2] if block[end - 1] == 13 else block[end - 1]  # 13: the return in "\r\n"
        if before > 32 and 32 < block[end + 1] < 128:
            return end + 1
    if len(block) < 2 * PIECE_BYTES:
        return 0  # wait for more
    if cut := block.rfind(b"\n") + 1:
        return cut
    cut = len(block) - 1
    while cut and block[cut] & 0xC0 == 0x80:  # a byte that continues a character
        cut -= 1
    return cut


def _refuse_compressed(path: Path, start: bytes) -> None:
    if start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")):
        raise DataError(f"{path}: a compressed file; unpack it first")


def read_json(path: Path, text_field: str) -> Iterator[Piece]:
    for where, _, row in json_rows(path):
        if text_field not in row:
            raise DataError(missing_field(where, row, text_field))
        if not isinstance(row[text_field], str):
            raise DataError(f"{where}: the field {text_field!r} is not text; {OTHER_FIELD}")
        if row[text_field]:
            yield Piece(row[text_field], True)


def read_molecules(path: Path) -> Iterator[Piece]:
    """The SMILES of each line of a .smi file, which end at the first space or tab; a name may follow."""
    for _, line in numbered_lines(path, LONGEST_MOLECULE):
        if smiles := line.split(maxsplit=1)[:1]:
            yield Piece(smiles[0], True)
