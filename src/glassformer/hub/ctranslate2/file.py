"""CTranslate2's model.bin on disk: settings and tensors by name, and second names of some tensors.

    version | kind | revision | n | n times: name, rank, sizes, number format, bytes, data | n | n times: name, whose

As `ModelSpec._serialize` in https://github.com/OpenNMT/CTranslate2/blob/master/python/ctranslate2/specs/model_spec.py
writes it: little-endian; a name is its length (16 bits, with the zero at its end) and its bytes; rank and number format
are bytes, all else has 32 bits. A stated length is checked against the size of the file before it is used.
"""

from __future__ import annotations

import contextlib
import math
import os
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.hub.bounded_reader import BoundedReader, Damage, read_mapped

VERSION = 6
MAX_DIMS = 4  # convolutions have three
# By their number in the file.
KINDS = (torch.float32, torch.int8, torch.int16, torch.int32, torch.float16, torch.bfloat16)


class CTranslate2Tensor(NamedTuple):
    """A tensor of a model.bin. kind: of its numbers. raw: its bytes, still in the file."""

    shape: tuple[int, ...]
    kind: torch.dtype
    raw: np.ndarray

    def numbers(self) -> Tensor:
        """Its numbers as fp32. Raises `ModelFolderError` for whole numbers, which need a scale."""
        if not self.kind.is_floating_point:
            raise ModelFolderError(f"{self.kind_name} is not read; convert the model again with --quantization float16")
        return self._as_it_is().float()

    @property
    def kind_name(self) -> str:
        return str(self.kind).removeprefix("torch.")

    def _as_it_is(self) -> Tensor:
        return torch.frombuffer(bytearray(self.raw), dtype=self.kind).view(self.shape)  # in the file nothing is aligned


class CTranslate2File(NamedTuple):
    """kind: of the model, e.g. `WhisperSpec`. settings: single numbers. second_names: of tensors with two."""

    kind: str
    revision: int
    settings: dict[str, int | float]
    tensors: dict[str, CTranslate2Tensor]
    second_names: dict[str, str]


def read_ctranslate2(path: str | os.PathLike[str]) -> CTranslate2File:
    """Read a model.bin of version 6; tensors stay on disk until they are asked for. Raises `ModelFolderError` for
    another file and for one that is damaged, cut short or states sizes that cannot be true."""
    return read_mapped(path, lambda data: _Reader(data).read(), missing="the folder is incomplete: fetch it again")


class _Reader(BoundedReader):
    def read(self) -> CTranslate2File:
        version = self.number("I")
        if version != VERSION:
            raise Damage(f"not a model of CTranslate2 in version {VERSION} of its format, but in {version}, or none")
        kind, revision = self._name(), self.number("I")
        settings: dict[str, int | float] = {}
        tensors: dict[str, CTranslate2Tensor] = {}
        for _ in range(self.count(10)):  # the least bytes that one takes
            name = self._name()
            if name in tensors or name in settings:
                raise Damage(f"{name!r} stands in it twice")
            tensor = self._tensor(name)
            if tensor.shape:
                tensors[name] = tensor
            else:
                settings[name] = tensor._as_it_is().item()
        second_names: dict[str, str] = {}
        for _ in range(self.count(6)):
            second, first = self._name(), self._name()
            if second in tensors or second in second_names or first not in tensors:
                raise Damage(f"{second!r} cannot be a second name of {first!r}")
            second_names[second] = first
        if self.at != len(self.data):
            raise Damage(f"damaged: it should end at byte {self.at:,} and has {len(self.data):,}; fetch it again")
        return CTranslate2File(kind, revision, settings, tensors, second_names)

    def _tensor(self, name: str) -> CTranslate2Tensor:
        rank = self.number("B")
        if rank > MAX_DIMS:
            raise Damage(f"{name!r} has {rank} dimensions, where up to {MAX_DIMS} are possible")
        shape = tuple(self.number("I") for _ in range(rank))
        number, n_bytes = self.number("B"), self.number("I")
        if number >= len(KINDS):
            raise Damage(f"{name!r} is in the number format {number}, which is unknown here")
        kind = KINDS[number]
        if 0 in shape or math.prod(shape) * kind.itemsize != n_bytes:
            raise Damage(f"{name!r} cannot have the shape {shape} and {n_bytes:,} bytes of {kind}")
        return CTranslate2Tensor(shape, kind, self.data[self.skip(n_bytes) : self.at])

    def _name(self) -> str:
        raw = self.take(self.number("H"))
        with contextlib.suppress(ValueError):
            if raw.endswith(b"\0"):
                return raw[:-1].decode("utf-8")
        raise Damage(f"damaged: a name should end at byte {self.at:,}; fetch it again")
