"""Small and fast weights: matrices kept as 8-bit integers with one scale a row, for generation on a CPU.

One new token reads every weight once, so its time is the time to read them: a quarter of the bytes is up to four times
the speed. Only weights are rounded (by at most half a step, 1/254 of the row's largest); sums stay in full width.
"""

from __future__ import annotations

import copy
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Up to this many rows PyTorch's int8 kernel is faster than turning the matrix back into floats once.
FEW_ROWS = 16
# The kernel works on whole vectors of numbers, and reads beyond the end of rows of other lengths.
MULTIPLE = 32

M = TypeVar("M", bound=nn.Module)


class Int8Linear(nn.Module):
    """A linear layer from (..., in) to (..., out) whose weight is int8 (out, in) with a scale (out,).

    It cannot be trained. Few rows (decoding) go through PyTorch's int8 kernel with bf16 activations, many rows
    (reading a prompt) through the weight turned back into floats.
    """

    weight: Tensor
    scale: Tensor
    kernel_scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().amax(dim=1).clamp_min(1e-12) / 127  # (out,)
        self.register_buffer("weight", (weight / scale[:, None]).round().to(torch.int8))
        self.register_buffer("scale", scale)
        self.register_buffer("kernel_scale", scale.bfloat16(), persistent=False)  # the kernel wants one number format
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        if rows.shape[0] <= FEW_ROWS and rows.shape[1] % MULTIPLE == 0 and rows.device.type == "cpu":
            y = torch._weight_int8pack_mm(rows.bfloat16(), self.weight, self.kernel_scale).to(x.dtype)
            y = y if self.bias is None else y + self.bias
        else:
            y = F.linear(rows, self.weight.to(x.dtype) * self.scale[:, None].to(x.dtype), self.bias)
        return y.view(*x.shape[:-1], -1)


def int8_copy(model: M) -> M:
    """A copy of a model in which every linear layer is an `Int8Linear`; embeddings and norms stay as they are."""
    model = copy.deepcopy(model)
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.Linear):
                setattr(module, name, Int8Linear(child))
    return model
