"""Patterns: who may look at whom. A pattern is the graph on which attention passes its messages.

    Causal     Full      Window(2)
    x . . .    x x x x   x . . .        rows are queries, columns are keys, x = may look
    x x . .    x x x x   x x . .
    x x x .    x x x x   . x x .
    x x x x    x x x x   . . x x

Patterns combine with `&` and `|`. Attention asks `allows` for the truth, and picks a fast path where it knows the kind.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassformer.errors import UsageError


class Pattern:
    """`allows(pos_q, pos_k)` tells, for positions that broadcast together, whether a query may look at a key."""

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        raise NotImplementedError

    def mask(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        """The whole graph as a boolean matrix: positions (..., T) and (..., S) -> (..., T, S)."""
        return self.allows(pos_q.unsqueeze(-1), pos_k.unsqueeze(-2))

    def __and__(self, other: Pattern) -> Pattern:
        return _Both(self, other)

    def __or__(self, other: Pattern) -> Pattern:
        return _Either(self, other)


@dataclass(frozen=True)
class Full(Pattern):
    """Everybody looks at everybody (an encoder)."""

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return torch.ones_like(pos_q == pos_k)


@dataclass(frozen=True)
class Causal(Pattern):
    """Nobody looks at the future (a decoder)."""

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return pos_k <= pos_q


@dataclass(frozen=True)
class Window(Pattern):
    """The query itself and the `width - 1` positions before it (Mistral's sliding window)."""

    width: int

    def __post_init__(self) -> None:
        if self.width < 1:
            raise UsageError(f"window width {self.width} is too small; a query sees at least itself: use 1 or more")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_k <= pos_q) & (pos_k > pos_q - self.width)


@dataclass(frozen=True)
class _Both(Pattern):
    left: Pattern
    right: Pattern

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return self.left.allows(pos_q, pos_k) & self.right.allows(pos_q, pos_k)


@dataclass(frozen=True)
class _Either(Pattern):
    left: Pattern
    right: Pattern

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return self.left.allows(pos_q, pos_k) | self.right.allows(pos_q, pos_k)
