"""Norms: bring every vector of the residual stream back to unit scale before a layer reads it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glassformer.layers.by_hand import pays_by_hand


def wider(x: Tensor, scale: Tensor) -> torch.dtype:
    """The format in which a norm is computed; its result is rounded once, to that of `x`.

    Under autocast bf16 vectors meet an fp32 scale: in QK-norm, in norms behind a layer, in BERT's transform. PyTorch
    then takes the slow path of an RMS norm, with a warning, and its LayerNorm on a CPU adds up the gradients of scale
    and shift in bf16: over 8,192 vectors they are wrong by 13 and 76 %. Rounding the scale to bf16 would be no faster
    and change a quarter of the results (benchmarks/norms.py).
    """
    return torch.promote_types(x.dtype, scale.dtype)


class LayerNorm(nn.Module):
    """Subtract the mean over channels, divide by the standard deviation, then scale (and shift).

    Ba, Kiros and Hinton 2016, https://arxiv.org/abs/1607.06450, eq. 4. The bias is optional: nanoGPT trains as well
    without it. Shapes: (..., C) -> (..., C). Mixed formats: see `wider`.
    """

    def __init__(self, width: int, *, eps: float = 1e-5, bias: bool = True):
        super().__init__()
        self.weight = nn.Parameter(nn.init.ones_(torch.empty(width)))
        self.bias = nn.Parameter(nn.init.zeros_(torch.empty(width))) if bias else None
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        y = F.layer_norm(x.to(wider(x, self.weight)), self.weight.shape, self.weight, self.bias, self.eps)
        return y.to(x.dtype)


class RMSNorm(nn.Module):
    """Divide by the root of the mean square over channels, then scale: a layer norm that keeps the mean.

    Zhang and Sennrich 2019, https://arxiv.org/abs/1910.07467, eq. 4. Shapes: (..., C) -> (..., C). It has no bias; the
    argument is there so that every norm is built alike.

    Two paths that a test holds equal: PyTorch's, and for training on a CPU, where PyTorch has no kernel with gradients
    and takes about ten passes over memory, `HandWrittenRMSNorm`. Mixed formats: see `wider`.
    """

    def __init__(self, width: int, *, eps: float = 1e-6, bias: bool = False):
        super().__init__()
        self.weight = nn.Parameter(nn.init.ones_(torch.empty(width)))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return self._normed(x, self.weight)

    def _normed(self, x: Tensor, scale: Tensor) -> Tensor:
        if x.dtype != scale.dtype:
            wide = wider(x, scale)
            return self._normed(x.to(wide), scale.to(wide)).to(x.dtype)
        if pays_by_hand(x, scale):
            return HandWrittenRMSNorm.apply(x, scale, self.eps)  # type: ignore[no-any-return, no-untyped-call]
        return F.rms_norm(x, scale.shape, scale, self.eps)


class ZeroCenteredRMSNorm(RMSNorm):
    """An RMS norm that keeps its scale as the difference from one: n (1 + w) where `RMSNorm` has n w.

    Gemma and Qwen3-Next store it so. In bf16, where 1.003 is 1, small differences survive, and they are added in fp32.
    The numbers are kept as they are stored, and not turned into scales when a folder is read: 1 + w rounds, so that a
    model would come back from its own checkpoint changed.
    """

    def __init__(self, width: int, *, eps: float = 1e-6, bias: bool = False):
        super().__init__(width, eps=eps, bias=bias)
        nn.init.zeros_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() if self.weight.element_size() < 4 else self.weight
        return self._normed(x, 1 + weight)


class HandWrittenRMSNorm(torch.autograd.Function):
    """The RMS norm with its gradient written out, which halves its time (docs/experiments.md).

    y = n w with n = x r and r = (mean(x^2) + eps)^(-1/2), so that dL/dx = r (g w - n mean(g w n)), where g = dL/dy, and
    dL/dw is the sum of g n over all but the channels. Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
        r = length.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        n = x * r
        ctx.save_for_backward(n, r, weight)
        return n * weight

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor | None, None]:
        n, r, weight = ctx.saved_tensors
        gn = g * n
        along_n = (gn @ weight).div_(-n.shape[-1]).unsqueeze(-1)  # (..., 1)
        g_x = torch.addcmul(g * weight, n, along_n).mul_(r)
        return g_x, gn.reshape(-1, gn.shape[-1]).sum(dim=0) if ctx.needs_input_grad[1] else None, None


NORMS: dict[str, type[LayerNorm] | type[RMSNorm]] = {
    "layernorm": LayerNorm,
    "rmsnorm": RMSNorm,
    "zero_centered_rmsnorm": ZeroCenteredRMSNorm,
}
