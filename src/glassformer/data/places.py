"""Where texts lie that are not one file: the files of a folder, and standard input, which is kept in a file."""

from __future__ import annotations

import hashlib
import os
import re
import sys
import warnings
from collections import Counter
from pathlib import Path

from glassformer.data.lines import JSON_SUFFIXES, open_bytes
from glassformer.errors import DataError, UsageError, plural
from glassformer.files import atomic_file, cache_folder
from glassformer.text_files import JsonError, parse_json

SUFFIXES = (".txt", ".md", *JSON_SUFFIXES)


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
