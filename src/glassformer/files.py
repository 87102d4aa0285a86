"""Files that are either whole or not there: atomic writes, hashes, the cache folder.

A reader never sees a half-written file: everything is written beside its place, flushed to the disk (fsync) and then
renamed, which POSIX makes atomic. A failed write leaves the old file as it was and no litter behind.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from glassformer.errors import GlassformerError


def cache_folder() -> Path:
    """Where downloads and prepared token stores are kept: `$GLASSFORMER_CACHE`, else `$XDG_CACHE_HOME/glassformer`,
    else `~/.cache/glassformer`. Everything in it can be made again."""
    if own := os.environ.get("GLASSFORMER_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "glassformer"


def sha256_file(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's bytes as 64 hexadecimal digits, read in pieces of 1 MiB."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


_REFUSALS = (
    ({errno.ENOSPC, errno.EDQUOT}, "no space left on the disk; nothing was replaced: free some space and run again"),
    ({errno.EFBIG}, "larger than the disk or a limit allows; nothing was replaced: choose another place"),
    (
        {errno.EACCES, errno.EPERM, errno.EROFS},
        "the folder is not writable; choose another place (--out) or change its permissions",
    ),
    ({errno.ENOTDIR, errno.EEXIST}, "this is a file, and a folder is needed; choose another path"),
    ({errno.EISDIR}, "this is a folder, and a file is needed; choose another path"),
    ({errno.ENOTEMPTY}, "something is already there; choose another place or move it away"),
    ({errno.ENAMETOOLONG, errno.ELOOP}, "not a usable name ({reason}); choose another one"),
)


@contextlib.contextmanager
def disk_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the operating system's refusals (disk full, read-only, no permission) into one clear line about `path`."""
    try:
        yield
    except OSError as error:
        path = re.sub(r"\.([^/]+)\.\w{8}\.part(?=/|$)", r"\1", str(path))  # its final name, not the temporary one
        for numbers, message in _REFUSALS:
            if error.errno in numbers:
                raise GlassformerError(f"{path}: {message.format(reason=error.strerror)}") from error
        raise


@contextlib.contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; when the block ends well it is flushed to disk and renamed to `path`.

    Raises:
        GlassformerError: the disk is full or the folder is not writable; the old file is untouched.
    """
    path = Path(path)
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            _flush_to_disk(temporary)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
            _flush_to_disk(path.parent)
        finally:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = False) -> Iterator[Path]:
    """Yield a temporary folder beside `path`; when the block ends well its files are flushed and it becomes `path`.

    An existing folder stays in place until the new one is whole (`replace=True`), or is an error unless it is empty
    (`replace=False`). A file of that name is always an error.

    Raises:
        GlassformerError: something is in the way, the disk is full or the place is not writable; nothing was changed.
    """
    path = Path(path)
    with disk_errors(path):
        if path.exists() and not path.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "a file", str(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            yield temporary
            for file in temporary.rglob("*"):
                _flush_to_disk(file)
            os.chmod(temporary, 0o777 & ~_umask())
            if replace and path.exists():
                old = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".old", dir=path.parent))
                os.rename(path, old / "old")  # two renames: a crash between them leaves both folders whole
                try:
                    os.rename(temporary, path)
                except BaseException:
                    os.rename(old / "old", path)
                    old.rmdir()
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                os.rename(temporary, path)
            _flush_to_disk(path.parent)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


_LITTER = re.compile(r"\.(?P<name>.+)\.\w{8}\.(?P<kind>part|old)")


def clear_litter(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Undo what a process that was killed in `atomic_file` or `atomic_folder` left in `folder` (of the thing `name`
    alone, if given): half-written things go; an old folder whose replacement did not get its name comes back. No other
    process may be writing there."""
    folder = Path(folder)
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (match := _LITTER.fullmatch(entry.name)) is None or name not in (None, match["name"]):
            continue
        if match["kind"] == "old" and (entry / "old").exists() and not (folder / match["name"]).exists():
            os.rename(entry / "old", folder / match["name"])
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def json_text(data: Any, *, indent: int | None = None, ascii: bool = False) -> str:
    """JSON text, characters as they are, or escaped beyond ASCII. JSON has no NaN and no infinity (RFC 8259, section
    6): both become `null`.

    >>> json_text({"loss": float("nan"), "interval": [0.5, float("inf")]})
    '{"loss": null, "interval": [0.5, null]}'
    """
    try:
        return json.dumps(data, indent=indent, ensure_ascii=ascii, allow_nan=False)
    except ValueError:  # the rare case pays for the copy
        return json.dumps(_finite(data), indent=indent, ensure_ascii=ascii, allow_nan=False)


def _finite(data: Any) -> Any:
    """The same data with None in place of every float that is not a finite number."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def write_json(path: str | os.PathLike[str], data: Any) -> None:
    """Write JSON atomically, two spaces of indent, as `json_text` makes it."""
    write_text(path, json_text(data, indent=2) + "\n")


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    """The process's umask, which can only be read by setting it."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
