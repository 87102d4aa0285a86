"""Positions: how a token knows where it stands. Attention by itself sees a set, not a sequence.

One interface, each method an identity by default, so that attention never names a kind:

    add(x, pos)         on the way in, to the embedding       (learned)
    rotate(q, k, pos)   inside attention, to queries and keys (rotary)

`pos` holds the position of every token: (T,) when all rows of a batch agree, or (B, T).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError


class Positions(nn.Module):
    """The interface, and the choice of having none (`NoPositions`): a causal model can still count a little."""

    def __init__(self, *, n_embd: int = 0, head_width: int = 0, block_size: int = 0, base: float = 10_000.0):
        super().__init__()

    def add(self, x_BTC: Tensor, pos: Tensor) -> Tensor:
        """Positions written into the embedding."""
        return x_BTC

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        """Positions written into queries and keys."""
        return q_BHTD, k_BKTD


class NoPositions(Positions):
    """No positions at all."""


class LearnedPositions(Positions):
    """One learned vector a position, added to the embedding (GPT-2, BERT). There is none beyond `block_size`."""

    def __init__(self, *, n_embd: int, block_size: int, head_width: int = 0, base: float = 10_000.0):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(block_size, n_embd))

    def add(self, x_BTC: Tensor, pos: Tensor) -> Tensor:
        return x_BTC + self.weight[pos]


class RotaryPositions(Positions):
    """Rotate each pair of channels of q and k by an angle that grows with the position.

    The dot product of a query at m and a key at n then depends on m - n alone. Su et al. 2021,
    https://arxiv.org/abs/2104.09864, eq. 34, with the pairs laid out as Llama and Qwen do: channel i with i + D/2.
    """

    cos: Tensor
    sin: Tensor

    def __init__(self, *, head_width: int, block_size: int, n_embd: int = 0, base: float = 10_000.0):
        super().__init__()
        if head_width % 2:
            raise UsageError(f"head width {head_width} is odd; rotary positions turn channels in pairs: make it even")
        frequency = base ** (-torch.arange(0, head_width, 2, dtype=torch.float64) / head_width)  # (D/2,)
        angle = torch.arange(block_size, dtype=torch.float64)[:, None] * frequency  # (block_size, D/2)
        self.register_buffer("cos", angle.cos().float(), persistent=False)
        self.register_buffer("sin", angle.sin().float(), persistent=False)

    def rotate(self, q_BHTD: Tensor, k_BKTD: Tensor, pos: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = self.cos[pos].unsqueeze(-3), self.sin[pos].unsqueeze(-3)  # (1, T, D/2) or (B, 1, T, D/2)
        return _turn(q_BHTD, cos, sin), _turn(k_BKTD, cos, sin)


def _turn(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The 2 x 2 rotation (a, b) -> (a cos - b sin, b cos + a sin), for all pairs at once."""
    cos, sin = cos.to(x.dtype), sin.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


POSITIONS: dict[str, type[Positions]] = {"none": NoPositions, "learned": LearnedPositions, "rotary": RotaryPositions}
