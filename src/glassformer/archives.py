"""Archives, read in place: a wheel or zip, a tar (sdist, npm package), a .deb. Nothing is unpacked to disk or run."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, cast

from glassformer.errors import DataError

MEMBER_LIMIT = 2 << 30  # bytes: no single file inside an archive may claim more
MEMBERS_LIMIT = 500_000  # names in one archive


def read_member(path: Path, name: str, *, limit: int = MEMBER_LIMIT) -> bytes:
    """The bytes of one file in an archive.

    Raises:
        DataError: no such file in it, larger than `limit` bytes, or the archive is damaged.
    """
    for _, content in read_members(path, lambda member: member == name, limit=limit):
        return content
    raise DataError(f"{path}: has no file {name!r} inside")


def read_members(
    path: Path, wanted: Callable[[str], bool], *, limit: int = MEMBER_LIMIT
) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of the regular files whose name, without a leading `./`, is `wanted`; in one pass.

    Raises:
        DataError: not a wheel, zip, tar or .deb; damaged; more than 500,000 names, or a file larger than `limit` bytes.
    """
    for name, open_it in _walk(path):
        if wanted(name):
            with _damage(path), open_it() as file:
                content = file.read(limit + 1)  # the archive's own word about the size is not trusted
            if len(content) > limit:
                raise DataError(f"{path}: {name!r} inside is larger than {limit:,} bytes")
            yield name, content


def _walk(path: Path) -> Iterator[tuple[str, Callable[[], Any]]]:
    with _damage(path), contextlib.ExitStack() as stack:
        if zipfile.is_zipfile(path):
            archive = stack.enter_context(zipfile.ZipFile(path))
            entries = (
                (info.filename, lambda info=info: archive.open(info))
                for info in archive.infolist()
                if not info.is_dir()
            )
        else:
            content = _deb_content(path)
            tar = stack.enter_context(tarfile.open(name=None if content else path, fileobj=content, mode="r:*"))
            entries = (  # extractfile gives None for what is no regular file
                (info.name.removeprefix("./"), lambda info=info: cast(IO[bytes], tar.extractfile(info)))
                for info in tar
                if info.isreg()
            )
        for count, entry in enumerate(entries):
            if count >= MEMBERS_LIMIT:
                raise DataError(f"{path}: more than {MEMBERS_LIMIT:,} files inside")
            yield entry


@contextlib.contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, EOFError, OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{path}: not a readable archive ({error}); delete it and fetch again") from error


def _deb_content(path: Path) -> io.BytesIO | None:
    """The data.tar.* inside a .deb: an `ar` archive is a line of 8 bytes, then headers of 60 bytes, each before its
    file, padded to an even length. None for anything that is not `ar`."""
    with open(path, "rb") as file:
        if file.read(8) != b"!<arch>\n":
            return None
        while len(header := file.read(60)) == 60:
            name, size = header[:16].decode("ascii", "replace").strip().rstrip("/"), int(header[48:58])
            if name.startswith("data.tar"):
                if name.endswith(".zst") and sys.version_info < (3, 14):
                    raise DataError(
                        f"{path}: packed with zstd, which Python reads from 3.14 on; use Debian's own package"
                    )
                return io.BytesIO(file.read(min(size, MEMBER_LIMIT)))
            if size < 0:
                break  # a header like this would send us round in circles
            file.seek(size + size % 2, os.SEEK_CUR)
    raise DataError(f"{path}: a .deb without data.tar inside; delete it and fetch again")
