"""Patterns: who may look at whom. A pattern is the graph on which attention passes its messages.

    Causal      Full        Window(2)   Sinks(1)    Prefix(3)   Strided(2)  Around(1)   Globals(1)
    x . . . .   x x x x x   x . . . .   x . . . .   x x x . .   x . . . .   x x . . .   x x x x x
    x x . . .   x x x x x   x x . . .   x . . . .   x x x . .   . x . . .   x x x . .   x . . . .
    x x x . .   x x x x x   . x x . .   x . . . .   x x x . .   x . x . .   . x x x .   x . . . .
    x x x x .   x x x x x   . . x x .   x . . . .   x x x x .   . x . x .   . . x x x   x . . . .
    x x x x x   x x x x x   . . . x x   x . . . .   x x x x x   x . x . x   . . . x x   x . . . .

Rows are queries, columns are keys, x = may look. Those that hold a tensor (of a batch or a graph) stand in
`batch_patterns.py`. Patterns combine with `&` and `|`: `Window(64) | Sinks(4)`, `Causal() & Documents(ids_BT)`.

Attention asks `mask` for the truth. `reach` tells how far a pattern can look at all, so that it may leave out what is
masked anyway (`local_attention.py`); `pattern_text.py` reads patterns from a recipe.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from glassformer.layers.batch_patterns import Documents, Edges, Lengths, Prefix
from glassformer.layers.pattern_base import FAR, Both, Either, Pattern, Reach, check_size

__all__ = [
    "FAR",
    "PATTERNS",
    "Around",
    "Both",
    "Causal",
    "Documents",
    "Edges",
    "Either",
    "Full",
    "Globals",
    "Lengths",
    "Pattern",
    "Prefix",
    "Reach",
    "Sinks",
    "Strided",
    "Window",
]


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

    @property
    def reach(self) -> Reach:
        return Reach(FAR, 0)


@dataclass(frozen=True)
class Window(Pattern):
    """The query itself and the `width - 1` positions before it (Mistral's sliding window)."""

    width: int

    def __post_init__(self) -> None:
        check_size("window width", self.width, 1, "a query sees at least itself")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_k <= pos_q) & (pos_k > pos_q - self.width)

    @property
    def reach(self) -> Reach:
        return Reach(self.width - 1, 0)


@dataclass(frozen=True)
class Sinks(Pattern):
    """The first `n` positions, as far as they are not ahead. Beside a window they keep long texts stable, because heads
    put the attention that they do not need there: Xiao et al. 2023, https://arxiv.org/abs/2309.17453."""

    n: int

    def __post_init__(self) -> None:
        check_size("number of sinks", self.n, 1, "without sinks leave the pattern out")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_k < self.n) & (pos_k <= pos_q)

    @property
    def reach(self) -> Reach:
        return Reach(0, 0, self.n)


@dataclass(frozen=True)
class Strided(Pattern):
    """The query itself and every `stride`-th position before it. `Window(n) | Strided(n)` is the strided attention of
    the Sparse Transformer: Child et al. 2019, https://arxiv.org/abs/1904.10509, section 4.3."""

    stride: int

    def __post_init__(self) -> None:
        check_size("stride", self.stride, 1, "1 is every position")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_k <= pos_q) & ((pos_q - pos_k) % self.stride == 0)

    @property
    def reach(self) -> Reach:
        return Reach(FAR, 0)


@dataclass(frozen=True)
class Around(Pattern):
    """Positions at most `n` away on both sides: the window of an encoder. `Around(n) | Globals(1)` is Longformer's
    attention: Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, figure 2d."""

    n: int

    def __post_init__(self) -> None:
        check_size("distance", self.n, 0, "0 is the query alone")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_q - pos_k).abs() <= self.n

    @property
    def reach(self) -> Reach:
        return Reach(self.n, self.n)


@dataclass(frozen=True)
class Globals(Pattern):
    """The first `n` positions see everybody and everybody sees them, the future included (Longformer, see `Around`)."""

    n: int

    def __post_init__(self) -> None:
        check_size("number of global positions", self.n, 1, "without them leave the pattern out")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_q < self.n) | (pos_k < self.n)


PATTERNS: dict[str, type[Pattern]] = {
    "around": Around,
    "causal": Causal,
    "documents": Documents,
    "edges": Edges,
    "full": Full,
    "globals": Globals,
    "lengths": Lengths,
    "prefix": Prefix,
    "sinks": Sinks,
    "strided": Strided,
    "window": Window,
}
