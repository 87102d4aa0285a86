"""Binary files of unknown origin, read in order. A length that a file states is checked against its size first."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from glassformer.errors import ModelFolderError, one_line
from glassformer.files import disk_errors

T = TypeVar("T")


class Damage(Exception):
    """What is wrong with the bytes."""


def read_mapped(path: str | os.PathLike[str], read: Callable[[np.ndarray], T], *, missing: str) -> T:
    """What `read` makes of a file's bytes, which stay on disk until they are looked at.

    Args:
        missing: what to do if there is no such file.

    Raises:
        ModelFolderError: the file is not there, empty, or `read` raised `Damage`.
    """
    path = Path(path)
    try:
        with disk_errors(path):
            data = np.memmap(path, dtype=np.uint8, mode="r")
    except FileNotFoundError:
        raise ModelFolderError(f"{path}: there is no such file; {missing}") from None
    except ValueError:  # an empty file cannot be mapped
        raise ModelFolderError(f"{path}: empty; fetch it again") from None
    try:
        return read(data)
    except Damage as error:
        raise ModelFolderError(f"{path}: {one_line(error)}") from None


class BoundedReader:
    """Goes through little-endian bytes. `at`: where it stands. `counts`: the form of a count, as in `struct`."""

    counts = "I"

    def __init__(self, data: np.ndarray):
        self.data, self.at = data, 0
        self._view = memoryview(data.data)  # quicker to cut than an array

    def number(self, form: str) -> Any:
        """The next number; `form` as in `struct`."""
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def count(self, least_bytes: int) -> int:
        """How many things follow; no more than there are bytes left for them."""
        n: int = self.number(self.counts)
        if n * least_bytes > len(self.data) - self.at:
            raise Damage(f"cut short or damaged: {n:,} items at byte {self.at:,} do not fit; fetch it again")
        return n

    def take(self, n: int) -> bytes:
        """The next n bytes, copied."""
        return self._view[self.skip(n) : self.at].tobytes()

    def skip(self, n: int) -> int:
        """Skip n bytes; where they begin."""
        if self.at + n > len(self.data):
            raise Damage(f"cut short at byte {len(self.data):,}; fetch it again")
        self.at += n
        return self.at - n
