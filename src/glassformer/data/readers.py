"""Read text from anywhere, in pieces that fit in memory, and say clearly what is wrong with it.

    source                     documents
    a corpus name              one (tinyshakespeare), one a play, one a row
    file.txt, file.md, ...     one: the file
    file.jsonl                 one a line: its field `text`
    a folder                   what its .txt, .md and .jsonl files hold, in sorted order
    -                          one: standard input
    owner/name                 one a row of a hub dataset's column `text`

A `Piece` is a stretch of one document; the last one of a document says so. A 2 GB file is one document in 500 pieces.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glassformer.data.corpora import CORPORA, Corpus
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.files import atomic_file, cache_folder, sha256_file

PIECE_BYTES = 4 << 20
SUFFIXES = (".txt", ".md", ".jsonl")
HASHED_BYTES = 64 << 20  # files up to this size are known by their content, larger ones by size and time of change


class Piece(NamedTuple):
    """A stretch of a document; `last` on its last piece."""

    text: str
    last: bool


class TextSource(NamedTuple):
    """A source that was found: a corpus, files, or a hub dataset.

    Attributes:
        name: what the user typed.
        kind: "corpus", "file", "folder", "standard input" or "hub".
        files: the files, for the three kinds that have some.
        corpus: for a corpus.
        hub: `owner/name[/folder]` for a hub dataset, also one that is a corpus.
        text_field: the field or column that holds the text.
    """

    name: str
    kind: str
    files: tuple[Path, ...] = ()
    corpus: Corpus | None = None
    hub: str | None = None
    text_field: str = "text"

    def pieces(self) -> Iterator[Piece]:
        """The text from the beginning; can be called again.

        Raises:
            DataError: what is wrong, where (file and line or byte), and what to do about it.
        """
        found = inside = False
        for piece in self._pieces():
            if piece.text or inside:  # an empty file among others is not a document
                found = True
                inside = not piece.last
                yield piece
        if not found:
            raise DataError(f"{self.name}: empty; give a source with some text in it")

    def _pieces(self) -> Iterator[Piece]:
        if self.hub:
            from glassformer.data.hub import hub_documents

            yield from (Piece(text, True) for text in hub_documents(self.hub, self.text_field))
        elif self.corpus:
            yield from (Piece(text, True) for text in self.corpus.texts())
        for path in self.files:
            yield from _read_jsonl(path, self.text_field) if path.suffix == ".jsonl" else _read_text(path)

    def bytes(self) -> int | None:
        """Bytes of the files or of the corpus's text; None for a hub dataset."""
        if self.corpus:
            return self.corpus.bytes
        return None if self.hub else sum(path.stat().st_size for path in self.files)

    def identity(self) -> str:
        """A string that changes when the text does: content hashes, or size and time for large files."""
        if self.corpus and not self.hub:
            return self.corpus.identity()
        told = [self.hub or "", self.text_field]
        for path in self.files:
            stat = path.stat()
            small = stat.st_size <= HASHED_BYTES
            told += [path.name, sha256_file(path) if small else f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"]
        return "\n".join(told)


def open_source(source: str, *, text_field: str = "text") -> TextSource:
    """Find out what `source` names (see the table at the top of this module); reads nothing but standard input.

    Raises:
        DataError: it names nothing (the nearest name is shown), an unreadable folder, or one without texts.
    """
    source = str(source)
    if source == "-":
        return TextSource("standard input", "standard input", (_keep_standard_input(),), text_field=text_field)
    if corpus := CORPORA.get(source):
        return TextSource(source, "corpus", corpus=corpus, hub=corpus.hub, text_field=text_field)
    if re.match(r"[a-z]+://", source):
        name = source.rstrip("/").rpartition("/")[2] or "my.txt"
        raise DataError(f"{source}: addresses are not fetched here; run curl -LO {source} first, then give {name}")
    path = Path(source).expanduser()
    if path.is_dir():
        return TextSource(source, "folder", tuple(_texts_in(path)), text_field=text_field)
    if path.exists():
        return TextSource(source, "file", (path,), text_field=text_field)
    if (
        re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w./-]+)?", source)
        and not path.suffix
        and not Path(source.split("/")[0]).exists()
    ):
        return TextSource(source, "hub", hub=source, text_field=text_field)
    beside = [str(path.parent / other.name) for other in path.parent.iterdir()] if path.parent.is_dir() else []
    near = did_you_mean(source, [*CORPORA, *beside])
    hint = near if near.startswith("did") else did_you_mean(source, CORPORA)
    raise DataError(f"{source}: no such file, folder or corpus; {hint}")


def keep_source(source: str) -> str:
    """The same source under a name that can be read again: standard input is kept in a file of the cache folder."""
    return str(open_source(source).files[0]) if str(source) == "-" else source


def read_documents(source: str, *, text_field: str = "text") -> Iterator[Piece]:
    """`open_source(source).pieces()`.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> _ = (folder / "two.jsonl").write_text('{"text": "one"}\\n{"text": "two"}\\n')
    >>> [piece.text for piece in read_documents(folder)]
    ['one', 'two']
    """
    return open_source(source, text_field=text_field).pieces()


def _texts_in(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions") from error

    found: list[Path] = []
    for place, folders, names in _walk(folder, refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [place / name for name in names if name.endswith(SUFFIXES) and not name.startswith(".")]
    if not found:
        raise DataError(f"{folder}: no .txt, .md or .jsonl file in this folder or below; give a folder with texts")
    return sorted(found)


def _walk(folder: Path, refuse) -> Iterator[tuple[Path, list[str], list[str]]]:
    for place, folders, names in os.walk(folder, onerror=refuse):
        yield Path(place), folders, names


def _keep_standard_input() -> Path:
    """Standard input as a file in the cache, since a text is read more than once (vocabulary, then ids)."""
    if sys.stdin.isatty():
        raise UsageError("- reads standard input, which is the keyboard here; pipe a text into it: cat my.txt | ...")
    folder = cache_folder() / "standard-input"
    digest = hashlib.sha256()
    with atomic_file(folder / "latest.txt") as temporary, open(temporary, "wb") as file:
        while piece := sys.stdin.buffer.read(1 << 20):
            digest.update(piece)
            file.write(piece)
    if (folder / "latest.txt").stat().st_size == 0:
        raise DataError("standard input: empty; pipe a text into it: cat my.txt | ...")
    path = folder / f"{digest.hexdigest()[:16]}.txt"
    os.replace(folder / "latest.txt", path)
    return path


def _open(path: Path):
    try:
        return open(path, "rb")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from error


def _read_text(path: Path) -> Iterator[Piece]:
    """One file as pieces of about 4 MiB that end with a line, and where a tokenizer would end a token anyway."""
    with _open(path) as file:
        rest, offset = b"", 0  # `offset`: bytes of the file before `rest`
        while block := file.read(PIECE_BYTES):
            if offset == 0 and not rest:
                _refuse_binary(path, block)
                if block.startswith(b"\xef\xbb\xbf"):  # the mark that some editors put before UTF-8
                    block, offset = block[3:], 3
            ended = len(block) < PIECE_BYTES
            block = rest + block
            cut = 0 if ended else _good_cut(block)
            if cut:
                yield Piece(_decode(path, block[:cut], offset), False)
                offset += cut
            rest = block[cut:]
        yield Piece(_decode(path, rest, offset), True)


def _good_cut(block: bytes) -> int:
    """Where to end a piece: after the last line break that stands between two printed characters, since byte-level BPE
    never joins what lies on its two sides; else after any line break, else before the last whole UTF-8 character."""
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


def _refuse_binary(path: Path, start: bytes) -> None:
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}: UTF-16 text; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8-{path.name}")
    if start.startswith((b"\x1f\x8b", b"PK\x03\x04", b"BZh", b"\xfd7zXZ", b"(\xb5/\xfd")):
        raise DataError(f"{path}: a compressed file; unpack it first")


def _decode(path: Path, data: bytes, offset: int) -> str:
    """UTF-8 bytes as text with `\\n` line ends."""
    if (at := data.find(b"\0")) >= 0:
        raise DataError(f"{path}: binary (a NUL byte at byte {offset + at:,}); give plain UTF-8 text")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: not UTF-8 at byte {offset + error.start:,} (0x{data[error.start]:02x}); if it is Latin-1, run "
            f"iconv -f LATIN1 -t UTF-8 {path.name} > utf8-{path.name}"
        ) from error
    return text.replace("\r\n", "\n") if "\r" in text else text


def _read_jsonl(path: Path, text_field: str) -> Iterator[Piece]:
    with _open(path) as file:
        offset = 0
        for number, line in enumerate(file, 1):
            text = _decode(path, line, offset)
            offset += len(line)
            if not text.strip():
                continue
            try:
                row = json.loads(text)
            except json.JSONDecodeError as error:
                raise DataError(
                    f"{path}:{number}: not JSON ({error.msg}, column {error.colno}); mend the line"
                ) from error
            if not isinstance(row, dict):
                raise DataError(
                    f"{path}:{number}: a JSON {type(row).__name__}, not an object with a field {text_field!r}"
                )
            if not isinstance(row.get(text_field), str):
                problem = "is not text" if text_field in row else f"is missing; it has: {', '.join(row) or 'none'}"
                raise DataError(f"{path}:{number}: the field {text_field!r} {problem}; name another with --text-field")
            if row[text_field]:
                yield Piece(row[text_field], True)
