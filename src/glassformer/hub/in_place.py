"""Files of other programs, used where they lie: read once, turned into a model folder and kept in the cache.

    glassformer chat SmolLM2-135M-Instruct-Q4_1.gguf

A file is known by its content; a file of the same place, length and time is not read again to find out. `import` makes
a folder of one's own instead.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from glassformer import __version__
from glassformer.files import cache_folder, sha256_file, write_text
from glassformer.hub.ctranslate2.reading import is_ctranslate2
from glassformer.hub.importing import import_model, is_gguf


def converted(path: Path) -> Path | None:
    """The model folder that a GGUF file or a folder of CTranslate2 was turned into, now or earlier; None for other
    paths. One line on standard error says that it is being read.

    Raises: as `import_model`.
    """
    weights = path if is_gguf(path) else path / "model.bin" if path.is_dir() and is_ctranslate2(path) else None
    if weights is None:
        return None
    name = re.sub(r"[^\w.-]+", "_", path.name)
    folder = cache_folder() / "converted" / f"{name}-{_digest(weights)[:16]}-{__version__}"
    if not (folder / "config.json").is_file():
        size = weights.stat().st_size / 2**20
        print(f"{path}: reading {size:,.0f} MiB, once; kept as {folder}", file=sys.stderr)
        import_model(path, folder)
    return folder


def _digest(file: Path) -> str:
    """The SHA-256 of a file, kept by its place, length and time."""
    stat = os.stat(file)
    seen = f"{file.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    note = cache_folder() / "converted" / "seen" / hashlib.sha256(seen.encode()).hexdigest()[:32]
    if note.is_file() and re.fullmatch(r"[0-9a-f]{64}", told := note.read_text(encoding="utf-8")):
        return told
    digest = sha256_file(file)
    write_text(note, digest)
    return digest
