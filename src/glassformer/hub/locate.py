"""Where a model is: the folder that a path or a name stands for.

Files of other programs are used where they lie: a GGUF file or a folder of CTranslate2 is read once, turned into a
model folder and kept in the cache. It is known by its content; one of the same place, length and time is not hashed
again. `glassformer import` makes a folder of one's own instead.

    glassformer chat SmolLM2-135M-Instruct-Q4_1.gguf
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
from pathlib import Path

from glassformer import __version__
from glassformer.errors import ModelFolderError, did_you_mean
from glassformer.files import cache_folder, sha256_file, write_text
from glassformer.hub.configuration import refuse_adapter
from glassformer.hub.ctranslate2.reading import is_ctranslate2
from glassformer.hub.importing import import_model, is_gguf
from glassformer.hub.published import is_published, pulled_folder


def model_folder_of(path: str | os.PathLike[str]) -> Path:
    """Where the model is: the folder itself, `model/` in it (a run folder, a checkpoint), or in the cache, for the name
    of a pulled model, a GGUF file and a folder of CTranslate2. Raises `ModelFolderError` where there is none."""
    folder = Path(path)
    if (kept := converted(folder)) is not None:
        return kept
    if not folder.exists() and (pulled_folder(str(path)) / "config.json").is_file():
        return pulled_folder(str(path))
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return candidate
    raise _not_found(path, folder)


def _not_found(path: str | os.PathLike[str], folder: Path) -> ModelFolderError:
    """What to do about a path without a model."""
    if not folder.exists():
        if is_published(str(path)):
            return ModelFolderError(f"{path}: not fetched yet; run: glassformer pull {path}")
        beside = folder.parent
        names = [str(entry) for entry in beside.iterdir() if entry.is_dir()] if beside.is_dir() else []
        hint = did_you_mean(str(folder), names) if names else "train one first: glassformer train shakespeare-fast"
        return ModelFolderError(f"{folder}: there is no such run or model folder; {hint}")
    if not folder.is_dir():
        hint = f"run: glassformer import {folder}"
        return ModelFolderError(f"{folder}: this file is no run, model folder or .gguf file; {hint}")
    for place in (folder, folder / "adapter"):  # of a checkpoint of LoRA
        refuse_adapter(place)
    if inside := sorted(str(entry.parent.parent) for entry in folder.glob("*/model/config.json")):
        return ModelFolderError(f"{folder}: holds several runs, name one of them: {', '.join(inside[:20])}")
    if files := sorted(map(str, folder.glob("*.gguf"))):
        return ModelFolderError(f"{folder}: holds GGUF files, name one of them: {', '.join(files[:20])}")
    return ModelFolderError(f"{folder}: no config.json here or in model/; a run gets one at its first evaluation")


def converted(path: Path) -> Path | None:
    """The model folder that a GGUF file or a folder of CTranslate2 was turned into, now (announced on standard error)
    or earlier; None for other paths. Raises as `import_model`."""
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
    identity = f"{file.resolve()}\n{stat.st_size}\n{stat.st_mtime_ns}"
    note = cache_folder() / "converted" / "seen" / hashlib.sha256(identity.encode()).hexdigest()[:32]
    if note.is_file() and re.fullmatch(r"[0-9a-f]{64}", kept := note.read_text(encoding="utf-8")):
        return kept
    digest = sha256_file(file)
    write_text(note, digest)
    return digest
