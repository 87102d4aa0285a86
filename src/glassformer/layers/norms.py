"""Norms: bring every vector of the residual stream back to unit scale before a layer reads it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.Module):
    """Subtract the mean over channels, divide by the standard deviation, then scale (and shift).

    Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450, eq. 4. The bias is optional: nanoGPT trains as well
    without it. Shapes: (..., C) -> (..., C).
    """

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width)) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


class RMSNorm(nn.Module):
    """Divide by the root of the mean square over channels, then scale: a layer norm that keeps the mean.

    Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4. Shapes: (..., C) -> (..., C). It has no bias; the
    argument is there so that every norm is built alike.
    """

    def __init__(self, width: int, *, eps: float = 1e-6, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight, self.eps)


NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {"layernorm": LayerNorm, "rmsnorm": RMSNorm}
