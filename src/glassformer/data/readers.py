"""Read text from any source in pieces that fit in memory, with clear errors.

    source                     documents
    a corpus name              one (tinyshakespeare), one a play, one a row
    file.txt, file.md, ...     one: the file
    file.jsonl, .ndjson        one a line: its field `text`
    file.json                  one an object of the array: its field `text`
    file.smi                   one a line: the SMILES of a molecule
    a folder                   what its .txt, .md, .jsonl, .ndjson, .json and .smi files hold, sorted
    -                          one: standard input; or, if it begins with a JSON object, as file.jsonl or file.json
    owner/name                 one a row of a hub dataset's column `text`

Endings may be in capitals. What a folder holds besides is named in a warning; hidden files are passed over.

A `Piece` is a part of one document; `last` marks its last piece. A 2 GB file is one document in 500 pieces.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from glassformer.data.corpora import CORPORA, Corpus
from glassformer.data.json_lines import JSON_SUFFIXES, holds_json, open_bytes
from glassformer.data.text_pieces import Piece, read_json, read_molecules, read_text, utf8_length
from glassformer.errors import DataError, UsageError, plural
from glassformer.files import atomic_file, cache_folder, sha256_file
from glassformer.plugins import load_named, no_such
from glassformer.text_files import JsonError, parse_json, utf8_bytes

SUFFIXES = (".txt", ".md", *JSON_SUFFIXES, ".smi")
HASHED_BYTES = 64 << 20  # files up to this size are known by their content, larger ones by size and time of change


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
            yield from self._documents(path) or read_text(path)

    def document_sizes(self) -> Iterator[int]:
        """Bytes of UTF-8 of each document in the files."""
        for path in self.files:
            if (documents := self._documents(path)) is not None:
                yield from (utf8_length(piece.text) for piece in documents)
            else:
                yield utf8_bytes(path)

    def _documents(self, path: Path) -> Iterator[Piece] | None:
        """The documents of a file that holds many; None: it is one."""
        if holds_json(path):
            return read_json(path, self.text_field)
        return read_molecules(path) if path.suffix.lower() == ".smi" else None

    def bytes(self) -> int | None:
        """Bytes of the files or of the corpus's text; None for a hub dataset."""
        if self.corpus:
            return self.corpus.bytes
        return None if self.hub else sum(path.stat().st_size for path in self.files)

    def identity(self) -> str:
        """A string that changes when the text does: content hashes, or size and time for large files."""
        if self.corpus and not self.hub:
            return self.corpus.identity()
        parts = [self.hub or "", self.text_field]
        for path in self.files:
            stat = path.stat()
            small = stat.st_size <= HASHED_BYTES
            parts += [path.name, sha256_file(path) if small else f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"]
            parts += _reading(path)
        return "\n".join(parts)


def open_source(source: str, *, text_field: str = "text") -> TextSource:
    """Find out what `source` names (see the table at the top of this module); reads nothing but standard input.

    Raises:
        DataError: it names nothing (the nearest name is shown), an unreadable folder, or one without texts.
    """
    source = str(source)
    if source == "-":
        return TextSource("standard input", "standard input", (keep_standard_input(),), text_field=text_field)
    load_named()
    if corpus := CORPORA.get(source):
        return TextSource(source, "corpus", corpus=corpus, hub=corpus.hub, text_field=text_field)
    if re.match(r"[a-z]+://", source):
        name = source.rstrip("/").rpartition("/")[2] or "my.txt"
        raise DataError(f"{source}: addresses are not fetched here; run curl -LO {source} first, then give {name}")
    path = Path(source).expanduser()
    if path.exists() and not path.is_dir() and not path.is_file():
        raise DataError(f"{source}: no file but a pipe or a device, which cannot be read twice; give - and pipe it in")
    if path.is_dir():
        return TextSource(source, "folder", tuple(texts_in(path)), text_field=text_field)
    if path.exists():
        return TextSource(source, "file", (path,), text_field=text_field)
    if (
        re.fullmatch(r"[\w.-]+/[\w.-]+(/[\w./-]+)?", source)
        and not path.suffix
        and not Path(source.split("/")[0]).exists()
    ):
        return TextSource(source, "hub", hub=source, text_field=text_field)
    raise DataError(no_such(source, "file, folder or corpus", CORPORA))


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


def _reading(path: Path) -> list[str]:
    """What `identity` adds for a file whose text is not simply its bytes, so that a store of its bytes is not taken."""
    if holds_json(path):
        return [] if path.suffix == ".jsonl" else ["objects"]
    if path.suffix.lower() == ".smi":
        return ["molecules"]
    text = utf8_bytes(path)
    return [] if text == path.stat().st_size else [f"{text} bytes of text"]


class LeftOutWarning(UserWarning):
    """A folder holds files that are not read."""


def texts_in(folder: Path) -> list[Path]:
    """The files in a folder and below that are read, sorted; a warning counts the others by their endings."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}); change its permissions") from error

    found: list[Path] = []
    left_out: Counter[str] = Counter()
    for place, folders, names in os.walk(folder, onerror=refuse):
        left_out["linked folder"] += sum((Path(place) / name).is_symlink() for name in folders)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for path in (Path(place) / name for name in names if not name.startswith(".")):
            if path.suffix.lower() in SUFFIXES and (path.is_file() or path.is_symlink()):
                found.append(path)
            else:
                left_out[path.suffix.lower() or "without an ending"] += 1
    kinds = f"{', '.join(SUFFIXES[:-1])} and {SUFFIXES[-1]}"
    if not found:
        raise DataError(f"{folder}: no {kinds.replace(' and ', ' or ')} file in this folder or below; give a folder "
                        "with texts")  # fmt: skip
    if left_out := +left_out:
        counts = ", ".join(f"{name}: {n:,}" for name, n in left_out.most_common(6))
        rest = ", ..." if len(left_out) > 6 else ""
        warnings.warn(
            f"{folder}: {plural(left_out.total(), 'file')} left out ({counts}{rest}); of a folder only "
            f"{kinds} files are read",
            LeftOutWarning,
            stacklevel=2,
        )
    return sorted(found)


def keep_standard_input() -> Path:
    """Standard input as a file in the cache, since a text is read more than once (vocabulary, then ids)."""
    if sys.stdin.isatty():
        raise UsageError("- reads standard input, which is the keyboard here; pipe a text into it: cat my.txt | ...")
    folder = cache_folder() / "standard-input"
    digest, latest = hashlib.sha256(), folder / "latest"
    with atomic_file(latest) as temporary, open(temporary, "wb") as file:
        while piece := sys.stdin.buffer.read(1 << 20):
            digest.update(piece)
            file.write(piece)
    if latest.stat().st_size == 0:
        raise DataError("standard input: empty; pipe a text into it: cat my.txt | ...")
    path = folder / f"{digest.hexdigest()[:16]}{_ending_by_content(latest)}"
    os.replace(latest, path)
    return path


def _ending_by_content(path: Path) -> str:
    """The ending that fits a file without a name: .jsonl if its first line is a JSON object, .json if it begins as an
    array of objects does, else .txt."""
    file, _ = open_bytes(path)
    with file:
        start = file.read(1 << 20)
    if re.match(rb"\s*\[\s*\{", start):
        return ".json"
    try:
        first = parse_json(next(line for line in start.decode("utf-8", "replace").split("\n") if line.strip()))
        return ".jsonl" if isinstance(first, dict) else ".txt"
    except (JsonError, StopIteration):
        return ".txt"
