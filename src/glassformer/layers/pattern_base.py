"""What a pattern is, and how two become one. The patterns themselves stand in `patterns.py` and `batch_patterns.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from glassformer.errors import UsageError

FAR = 2**31  # a distance beyond every sequence


class Reach(NamedTuple):
    """A bound of what a query can see: keys up to `before` behind it and `after` ahead of it, and those of the first
    `sinks` positions that are not ahead. `FAR` is no bound."""

    before: int
    after: int
    sinks: int = 0


class Pattern:
    """A graph over positions. A new one is a class with `allows`; what else it knows of itself makes it faster."""

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        """Whether a query may look at a key: positions (..., T, 1) and (..., 1, S) -> broadcasts to (..., T, S)."""
        raise NotImplementedError

    @property
    def reach(self) -> Reach:
        """How far it looks, at most."""
        return Reach(FAR, FAR)

    @property
    def looks_ahead(self) -> bool:
        """Whether a query may see a later position; if not, the pattern serves a decoder with a cache."""
        return self.reach.after > 0

    @property
    def is_local(self) -> bool:
        """Whether it looks only so far, both ways (at the first few positions from anywhere, where there are sinks)."""
        return self.reach.before < FAR and self.reach.after < FAR

    @property
    def rows(self) -> int | None:
        """For how many rows of a batch it was made; None: any."""
        return None

    @property
    def size(self) -> int | None:
        """How many positions it knows; None: all."""
        return None

    def in_row(self, row: int | Tensor) -> Pattern:
        """The pattern of one row of a batch (FlexAttention asks row by row)."""
        return self

    def mask(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        """The graph as a boolean matrix: (T, S), or (B, T, S) where positions or the pattern differ by row.

        `pos_q` (T,) or (B, T), `pos_k` (S,) or (B, S). Raises `UsageError` when they do not fit `rows` or `size`.
        """
        self.check_fits(*(pos.shape[0] for pos in (pos_q, pos_k) if pos.dim() == 2))
        if not torch.compiler.is_compiling() and self.size is not None and pos_q.device.type == "cpu":
            last = int(torch.maximum(pos_q.max(), pos_k.max()))
            if last >= self.size:
                raise UsageError(f"position {last} lies beyond the {self.size} positions of {self}; make it larger")
        pos_q, pos_k = pos_q.unsqueeze(-1), pos_k.unsqueeze(-2)
        allowed = self.allows(pos_q, pos_k)
        return allowed.expand(torch.broadcast_shapes(allowed.shape, pos_q.shape, pos_k.shape))

    def check_fits(self, *batch_sizes: int) -> None:
        """Raise `UsageError` unless the pattern was made for batches of these sizes."""
        for B in batch_sizes:
            if self.rows not in (None, 1, B) and B != 1:
                raise UsageError(f"{self} was made for {self.rows} rows, the batch has {B}; give one entry a row")

    def draw(self, n_queries: int, n_keys: int | None = None) -> str:
        """The graph as `patterns.py` has it, to look at; rows of a batch one below the other.

        >>> from glassformer.layers import Sinks, Window
        >>> print((Window(2) | Sinks(1)).draw(4))
        x . . .
        x x . .
        x x x .
        x . x x
        """
        mask = self.mask(torch.arange(n_queries), torch.arange(n_queries if n_keys is None else n_keys))
        graphs = mask if mask.dim() == 3 else mask[None]
        return "\n\n".join("\n".join(" ".join(".x"[may] for may in row) for row in graph.tolist()) for graph in graphs)

    def __str__(self) -> str:
        """As a recipe writes it: `window(64) | sinks(4)`; `parse_pattern` reads it back unless it holds a tensor."""
        sizes = [_text(getattr(self, name)) for name in getattr(self, "__dataclass_fields__", ())]
        return type(self).__name__.lower() + (f"({', '.join(sizes)})" if sizes else "")

    def __and__(self, other: Pattern) -> Pattern:
        return Both(self, other)

    def __or__(self, other: Pattern) -> Pattern:
        return Either(self, other)


@dataclass(frozen=True)
class _Pair(Pattern):
    left: Pattern
    right: Pattern

    def __post_init__(self) -> None:
        if self.right.rows is not None:
            self.left.check_fits(self.right.rows)

    @property
    def rows(self) -> int | None:
        left, right = self.left.rows, self.right.rows
        return right if left is None else left if right is None else max(left, right)

    @property
    def size(self) -> int | None:
        left, right = self.left.size, self.right.size
        return right if left is None else left if right is None else min(left, right)

    def in_row(self, row: int | Tensor) -> Pattern:
        return type(self)(self.left.in_row(row), self.right.in_row(row))


@dataclass(frozen=True)
class Both(_Pair):
    """`left & right`: the edges that both graphs have."""

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return self.left.allows(pos_q, pos_k) & self.right.allows(pos_q, pos_k)

    @property
    def reach(self) -> Reach:
        a, b = self.left.reach, self.right.reach  # one's sinks may lie within the other's window, so the larger number
        return Reach(min(a.before, b.before), min(a.after, b.after), max(a.sinks, b.sinks))

    def __str__(self) -> str:  # `&` binds tighter than `|`, and both join from the left
        left = f"({self.left})" if isinstance(self.left, Either) else str(self.left)
        right = f"({self.right})" if isinstance(self.right, _Pair) else str(self.right)
        return f"{left} & {right}"


@dataclass(frozen=True)
class Either(_Pair):
    """`left | right`: the edges that one of the graphs has at least."""

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return self.left.allows(pos_q, pos_k) | self.right.allows(pos_q, pos_k)

    @property
    def reach(self) -> Reach:
        return Reach(*(max(pair) for pair in zip(self.left.reach, self.right.reach, strict=True)))

    def __str__(self) -> str:
        right = f"({self.right})" if isinstance(self.right, Either) else str(self.right)
        return f"{self.left} | {right}"


def check_size(what: str, n: int, least: int, why: str) -> None:
    """Raise `UsageError` unless `least <= n < FAR`."""
    if n < least:
        raise UsageError(f"{what} {n} is too small; {why}: use {least} or more")
    if n >= FAR:
        raise UsageError(f"{what} {n} is too large; use less than {FAR}")


def _text(value: int | Tensor) -> str:
    """A size, or a tensor: its numbers when they are few, else its shape."""
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.dim() <= 1 and value.numel() <= 8 else " x ".join(map(str, value.shape))
    return str(value)
