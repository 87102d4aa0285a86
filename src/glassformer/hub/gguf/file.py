"""GGUF files as they lie on disk: a header of named values, then tensors, each in a number format of its own.

    "GGUF" | version | n_tensors | n_fields | fields: name, kind, value | tensors: name, shape, kind, offset | data

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The header is read here and not by the `gguf` package, whose
reader makes an array of every string (seven seconds for a vocabulary of 49,152) and believes a file's
stated lengths. That package decides what a tensor's bytes mean.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from glassformer.errors import MissingExtraError, ModelFolderError
from glassformer.hub.bounded_reader import BoundedReader, Damage, read_mapped

if TYPE_CHECKING:
    from torch import Tensor

MAX_DIMS = 4  # as in ggml
MAX_NESTING = 2  # arrays in arrays: none of the known fields has any
MAX_ELEMENTS = 1 << 40
# The formats of single values, by their number; 8 is text and 9 an array.
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_TEXT, _ARRAY = 8, 9


class GGUFTensor(NamedTuple):
    """A tensor of a GGUF file. shape: as torch has it, rows first (the file has it reversed). kind: the
    number format, a `gguf.GGMLQuantizationType`. raw: its bytes, (rows, bytes a row), still in the file."""

    shape: tuple[int, ...]
    kind: Any
    raw: np.ndarray

    def dequantised(self) -> Tensor:
        """Its numbers as fp32. Raises `ModelFolderError` for a format that the `gguf` package does not read."""
        import torch

        quants = gguf_package().quants
        try:
            numbers = quants.dequantize(self.raw, self.kind)
        except NotImplementedError:
            raise ModelFolderError(f"{self.kind.name} is not read; take a file in Q8_0, Q4_K or F16") from None
        return torch.from_numpy(np.array(numbers, dtype=np.float32)).view(self.shape)


class GGUFFile(NamedTuple):
    """The fields (numbers, texts, lists of these) and tensors of a file, by name."""

    fields: dict[str, Any]
    tensors: dict[str, GGUFTensor]


def gguf_package() -> Any:
    """The `gguf` package. Raises `MissingExtraError` without it."""
    try:
        import gguf
        import gguf.quants
    except ImportError:
        raise MissingExtraError("reading and writing GGUF files", "gguf") from None
    return gguf


def read_gguf(path: str | os.PathLike[str]) -> GGUFFile:
    """Read a GGUF file (version 2 or 3, little-endian); tensors stay on disk until they are asked for. Raises
    `ModelFolderError` for another file and for one that is damaged, cut short or states sizes that cannot be true, and
    `MissingExtraError` without the `gguf` package."""
    gguf = gguf_package()
    return read_mapped(path, lambda data: _Reader(data, gguf).read(), missing="give the path of a .gguf file")


class _Reader(BoundedReader):
    counts = "Q"

    def __init__(self, data: np.ndarray, gguf: Any):
        super().__init__(data)
        self.gguf = gguf

    def read(self) -> GGUFFile:
        if self.take(4) != b"GGUF":
            raise Damage("not a GGUF file: it does not begin with GGUF")
        version = self.number("I")
        if version not in (2, 3):
            form = "big-endian" if version & 0xFFFF == 0 else f"of version {version}"
            raise Damage(f"a GGUF file {form} cannot be read; versions 2 and 3, little-endian, can")
        n_tensors, n_fields = self.count(24), self.count(12)  # the least bytes that each of them takes
        fields: dict[str, Any] = {}
        for _ in range(n_fields):
            name = self._text()
            if name in fields:
                raise Damage(f"the field {name!r} stands in it twice")
            fields[name] = self._value(self.number("I"))
        headers = [self._tensor_header() for _ in range(n_tensors)]
        alignment = fields.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
            raise Damage(f"general.alignment is {alignment!r}, and must be a power of two")
        start = -(-self.at // alignment) * alignment
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in headers:
            if name in tensors:
                raise Damage(f"the tensor {name!r} stands in it twice")
            tensors[name] = self._tensor(name, shape, kind, start + offset)
        return GGUFFile(fields, tensors)

    def _tensor_header(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        n_dims = self.number("I")
        if not 1 <= n_dims <= MAX_DIMS:
            raise Damage(f"the tensor {name!r} has {n_dims} dimensions, where 1 to {MAX_DIMS} are possible")
        shape = tuple(self.number("Q") for _ in range(n_dims))[::-1]
        return name, shape, self.number("I"), self.number("Q")

    def _tensor(self, name: str, shape: tuple[int, ...], number: int, start: int) -> GGUFTensor:
        try:
            kind = self.gguf.GGMLQuantizationType(number)
            in_block, block_bytes = self.gguf.GGML_QUANT_SIZES[kind]
        except (ValueError, KeyError):
            raise Damage(f"the tensor {name!r} is in the number format {number}, which is unknown here") from None
        if min(shape) < 1 or math.prod(shape) > MAX_ELEMENTS or shape[-1] % in_block:
            raise Damage(f"the tensor {name!r} cannot have the shape {shape} in the number format {kind.name}")
        row = shape[-1] // in_block * block_bytes
        end = start + math.prod(shape[:-1]) * row
        if end > len(self.data):
            raise Damage(f"cut short: the tensor {name!r} ends at byte {end:,} of {len(self.data):,}; fetch it again")
        raw = self.data[start:end].reshape(-1, row)
        plain = {"F32": "<f4", "F16": "<f2"}.get(kind.name)  # formats that the package takes as numbers
        return GGUFTensor(shape, kind, raw.view(plain) if plain else raw)

    def _value(self, kind: int, nesting: int = 0) -> Any:
        if kind == _TEXT:
            return self._text()
        if kind in _SCALARS:
            return self.number(_SCALARS[kind])
        if kind != _ARRAY or nesting == MAX_NESTING:
            raise Damage(f"a field's value is of kind {kind}, which is unknown here")
        kind = self.number("I")
        if kind in _SCALARS:
            dtype = np.dtype(_SCALARS[kind]).newbyteorder("<")
            n = self.count(dtype.itemsize)
            return np.frombuffer(self.take(n * dtype.itemsize), dtype).tolist()
        return [self._value(kind, nesting + 1) for _ in range(self.count(8))]

    def _text(self) -> str:
        return self.take(self.count(1)).decode("utf-8", "replace")  # some vocabularies hold pieces of characters
