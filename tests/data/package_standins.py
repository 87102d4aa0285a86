"""Small packages of the real kinds, made on the spot: what the readers of examples open."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import Path


def deb(path: Path, files: dict[str, str | bytes]) -> Path:
    """A Debian package with these files; names that end with .gz are packed."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:xz") as tar:
        for name, text in files.items():
            data = text.encode() if isinstance(text, str) else text
            data = gzip.compress(data) if name.endswith(".gz") and isinstance(text, str) else data
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return write_deb(path, content.getvalue())


def write_deb(path: Path, content: bytes) -> Path:
    """A Debian package around a data.tar.xz."""
    members = {"debian-binary": b"2.0\n\n", "control.tar.xz": b"xyz", "data.tar.xz": content}
    with open(path, "wb") as file:
        file.write(b"!<arch>\n")
        for name, data in members.items():
            file.write(f"{name:<16}{0:<12}{0:<6}{0:<6}{0o644:<8o}{len(data):<10}`\n".encode())
            file.write(data + b"\n" * (len(data) % 2))
    return path


def wheel(path: Path, files: dict[str, str]) -> Path:
    """A Python package with these files."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path
