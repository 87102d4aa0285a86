"""Feed-forward: what each token computes by itself, after attention has brought it the values of others.

    x ──► up (C -> F) ──► activation ──► down (F -> C) ──► + x         each hidden neuron asks one question of x

Gated: the activation of one projection multiplies another (Shazeer 2020, https://arxiv.org/abs/2002.05202):

    x ─┬► gate ──► silu ─┐
       └► up ────────────┴► * ──► down
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glassformer.layers.by_hand import pays_by_hand
from glassformer.taps import Tap


def gelu_new(x: Tensor) -> Tensor:
    """GPT-2's GELU: the tanh approximation of Hendrycks and Gimpel 2016, https://arxiv.org/abs/1606.08415."""
    return F.gelu(x, approximate="tanh")


def relu2(x: Tensor) -> Tensor:
    """Squared ReLU (So et al. 2021, Primer, https://arxiv.org/abs/2109.08668)."""
    return F.relu(x).square()


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU, x sigmoid(1.702 x) (Hendrycks and Gimpel 2016; CLIP, gpt-oss)."""
    return x * torch.sigmoid(1.702 * x)


# Keys are the names that Hugging Face configurations use.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_new": gelu_new,
    "quick_gelu": quick_gelu,
    "relu": F.relu,
    "relu2": relu2,
    "silu": F.silu,
}


class FeedForward(nn.Module):
    """Two linear layers around an activation. (B, T, C) -> (B, T, C), hidden width F."""

    def __init__(self, *, n_embd: int, n_hidden: int, activation: str, bias: bool, dropout: float = 0.0):
        super().__init__()
        self.up = nn.Linear(n_embd, n_hidden, bias=bias)
        self.down = nn.Linear(n_hidden, n_embd, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout
        self.tap_hidden, self.tap_output = Tap("hidden"), Tap("output")

    def forward(self, x_BTC: Tensor) -> Tensor:
        hidden_BTF = self.tap_hidden(self.activation(self.up(x_BTC)))
        return self.tap_output(F.dropout(self.down(hidden_BTF), self.dropout, self.training))


class GatedFeedForward(nn.Module):
    """The gated form; `gate` and `up` lie in one matrix, gate first. (B, T, C) -> (B, T, C), hidden width F."""

    def __init__(self, *, n_embd: int, n_hidden: int, activation: str, bias: bool, dropout: float = 0.0):
        super().__init__()
        self.gate_up = nn.Linear(n_embd, 2 * n_hidden, bias=bias)
        self.down = nn.Linear(n_hidden, n_embd, bias=bias)
        self.activation = ACTIVATIONS[activation]
        self.dropout = dropout
        self.tap_hidden, self.tap_output = Tap("hidden"), Tap("output")

    def forward(self, x_BTC: Tensor) -> Tensor:
        hidden_BTF = self.tap_hidden(self._gated(self.gate_up(x_BTC)))
        return self.tap_output(F.dropout(self.down(hidden_BTF), self.dropout, self.training))

    def _gated(self, gate_up_BT2F: Tensor) -> Tensor:
        if self.activation is F.silu and pays_by_hand(gate_up_BT2F):
            return HandWrittenSwiGLU.apply(gate_up_BT2F)  # type: ignore[no-any-return, no-untyped-call]
        gate_BTF, up_BTF = gate_up_BT2F.chunk(2, dim=-1)
        return self.activation(gate_BTF) * up_BTF


class ClampedFeedForward(GatedFeedForward):
    """The gated form of gpt-oss: what comes in is kept within `limit`, and the gate multiplies up + 1.

    https://arxiv.org/abs/2508.10925, sect. 2.2. The gate is bounded from above only, `up` on both sides.
    """

    def __init__(self, *, limit: float, **arguments: Any):
        super().__init__(**arguments)
        self.limit = limit

    def _gated(self, gate_up_BT2F: Tensor) -> Tensor:
        gate_BTF, up_BTF = gate_up_BT2F.chunk(2, dim=-1)
        gate_BTF, up_BTF = gate_BTF.clamp(max=self.limit), up_BTF.clamp(-self.limit, self.limit)
        return self.activation(gate_BTF) * (up_BTF + 1)


class HandWrittenSwiGLU(torch.autograd.Function):
    """silu(gate) up with its gradient written out: it goes into one tensor, as gate and up came out of one, and silu is
    computed again and not kept. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, gate_up: Tensor) -> Tensor:
        gate, up = gate_up.chunk(2, dim=-1)
        ctx.save_for_backward(gate_up)
        return F.silu(gate).mul_(up)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        (gate_up,) = ctx.saved_tensors
        (gate, up), g_both = gate_up.chunk(2, dim=-1), torch.empty_like(gate_up)
        g_gate, g_up = g_both.chunk(2, dim=-1)
        torch.mul(F.silu(gate), g, out=g_up)
        torch.ops.aten.silu_backward.grad_input(up * g, gate, grad_input=g_gate)
        return g_both
