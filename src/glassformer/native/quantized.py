"""Matrices of 4, 8, 16 or 32 bits, in the layout that `decode.cpp` reads.

    32 bits   floats, row by row
    16 bits   bfloat16, row by row
    8 bits    w = scale * q                 q from -127 to 127      a scale for 32 numbers of a row (GGUF's Q8_0)
    4 bits    w = scale * q + minimum       q from 0 to 15          both for 32 numbers of a row (GGUF's Q4_1)

Scales and minima are 16-bit floats. A matrix that comes from such a file is kept exactly as it was.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import DeviceError
from glassformer.layers import ACTIVATIONS
from glassformer.native.building import library
from glassformer.threads import kernel_threads

KINDS = ("silu", "gelu_new", "gelu", "relu", "relu2")  # activations, as decode.cpp numbers them
TILE, GROUP = 8, 32  # rows that lie together, columns that share a scale
BLOCK_BYTES = {8: 256 + 16, 4: 128 + 16 + 16}
FLOATS = {32: torch.float32, 16: torch.bfloat16}

NO_COMPILER = "weights in blocks of 4 or 8 bits need a C++ compiler (g++, or $CXX); use --dtype int8 or fp32"


def fields(kind: Any, names: str) -> list[tuple[str, Any]]:
    """Fields of one type for a `ctypes.Structure`."""
    return [(name, kind) for name in names.split()]


class MatrixStruct(ctypes.Structure):
    """`Matrix` in decode.cpp."""

    _fields_ = fields(ctypes.c_void_p, "blocks bias") + fields(ctypes.c_int32, "rows columns bits")


class QuantizedLinear(nn.Module):
    """A linear layer from (..., columns) to (..., rows) whose weight is kept in 32, 16, 8 or 4 bits. It cannot be
    trained.

    exact: inputs stay in fp32, and so do products and sums. Else inputs are rounded to 8 bits too, by groups of 32, in
    each call; sums are exact within a group. `activation`: what follows, by its place in `KINDS`; None: nothing.
    """

    blocks: Tensor
    activation: int | None = None

    def __init__(
        self, weight: Tensor, bias: Tensor | None, bits: int, *, exact: bool = False, blocks: Tensor | None = None
    ):
        super().__init__()
        self.rows, self.columns, self.bits, self.exact = *weight.shape, bits, exact
        self.register_buffer("blocks", pack(weight.detach().float(), bits)[0] if blocks is None else blocks)
        self.bias = None if bias is None else nn.Parameter(bias.detach().float(), requires_grad=False)

    @classmethod
    def of(cls, linear: nn.Linear) -> QuantizedLinear:
        """An exact one in the fewest bits that hold every number as it is: 4 or 8, if the weight comes from a file of
        such blocks, 16, if it was saved in bfloat16."""
        weight = linear.weight.detach().float()
        for bits in (4, 8, 16):
            if pack(weight[:TILE], bits)[1]:  # mostly the first rows show it
                blocks, same = pack(weight, bits)
                if same:
                    return cls(weight, linear.bias, bits, exact=True, blocks=blocks)
        return cls(weight, linear.bias, 32, exact=True)

    def forward(self, x: Tensor) -> Tensor:
        compiled = library()
        if compiled is None or x.device.type != "cpu":
            y = F.linear(x, self.dequantized().to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))
            return y if self.activation is None else ACTIVATIONS[KINDS[self.activation]](y)
        rows = x.detach().reshape(-1, self.columns).float().contiguous()
        y = rows.new_empty(len(rows), self.rows)
        kind = -1 if self.activation is None else self.activation
        settings = len(rows), y.data_ptr(), kind, int(self.exact), kernel_threads()
        compiled.glassformer_multiply(ctypes.byref(self.struct()), rows.data_ptr(), *settings)
        return y.view(*x.shape[:-1], self.rows).to(x.dtype)

    def dequantized(self) -> Tensor:
        """The weight as floats, (rows, columns)."""
        return unpack(self.blocks, self.rows, self.columns, self.bits)

    def struct(self) -> MatrixStruct:
        """For the compiled functions; true as long as the tensors stay where they are."""
        bias = None if self.bias is None else self.bias.data_ptr()
        return MatrixStruct(self.blocks.data_ptr(), bias, self.rows, self.columns, self.bits)

    def _apply(self, fn, recurse=True):  # type: ignore[no-untyped-def]
        """Move, but never to another number format: the blocks are bytes, and the bias is added in fp32."""
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), recurse)


def pack(weight_RC: Tensor, bits: int) -> tuple[Tensor, bool]:
    """A matrix (rows, columns) as blocks of bytes, (tiles, groups, bytes of a block), of 16 and 32 bits as it is; and
    whether every number is what it was. It needs a compiler."""
    compiled = library()
    if compiled is None:
        raise DeviceError(NO_COMPILER)
    rows, columns = weight_RC.shape
    weight_RC = weight_RC.contiguous()
    if bits in FLOATS:
        kept = weight_RC.to(FLOATS[bits])
        return kept, torch.equal(kept.float(), weight_RC)
    blocks = torch.empty(-(-rows // TILE), columns // GROUP, BLOCK_BYTES[bits], dtype=torch.uint8)
    same = compiled.glassformer_pack(weight_RC.data_ptr(), rows, columns, bits, blocks.data_ptr(), kernel_threads())
    return blocks, bool(same)


def unpack(blocks: Tensor, rows: int, columns: int, bits: int) -> Tensor:
    """The floats, (rows, columns), of the blocks that `pack` made."""
    if bits in FLOATS:
        return blocks.float()
    tiles, groups, _ = blocks.shape
    if bits == 8:
        steps = blocks[:, :, :256].contiguous().view(torch.int8).view(tiles, groups, 8, 32)
        tail = blocks[:, :, 256:].contiguous().view(torch.float16).float()
        scale, minimum = tail, torch.zeros_like(tail)
    else:
        both = blocks[:, :, :128].view(tiles, groups, 4, 32)
        steps = torch.cat((both & 15, both >> 4), dim=2)
        tail = blocks[:, :, 128:].contiguous().view(torch.float16).float()
        scale, minimum = tail[:, :, :TILE], tail[:, :, TILE:]
    q = steps.float().view(tiles, groups, 8, TILE, 4).transpose(2, 3).reshape(tiles, groups, TILE, GROUP)
    weight = q * scale.unsqueeze(-1) + minimum.unsqueeze(-1)
    return weight.transpose(1, 2).reshape(tiles * TILE, columns)[:rows]
