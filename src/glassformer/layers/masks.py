"""Masks: which query may attend to which key. A mask is a graph on which attention passes its messages.

    causal      full        window(2)   sinks(1)    prefix(3)   bidirectional_window(1)
    x . . . .   x x x x x   x . . . .   x . . . .   x x x . .   x x . . .
    x x . . .   x x x x x   x x . . .   x . . . .   x x x . .   x x x . .
    x x x . .   x x x x x   . x x . .   x . . . .   x x x . .   . x x x .
    x x x x .   x x x x x   . . x x .   x . . . .   x x x x .   . . x x x
    x x x x x   x x x x x   . . . x x   x . . . .   x x x x x   . . . x x

Rows are queries, columns are keys, x = may attend. Masks that hold a tensor of one batch or one graph are in
`batch_masks.py`. Masks combine with `&` and `|`: `Window(64) | Sinks(4)`, `Causal() & Documents(ids_BT)`.

Each mask is a function `mask_mod(b, h, q, k)` of row, head, query position and key position, as FlexAttention takes it
(https://arxiv.org/abs/2412.05496); `mask` evaluates it for a whole matrix. `reach` bounds how far a query can see, so
that attention may skip what is masked anyway (`sparse_attention.py`). `mask_text.py` reads masks from recipes.
"""

from __future__ import annotations

import re
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


class Mask:
    """A graph over positions. A new one is a class with `mask_mod`; its other properties make it faster."""

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        """Whether query position q of row b may attend to key position k. The arguments broadcast; no mask here depends
        on the head h."""
        raise NotImplementedError

    @property
    def reach(self) -> Reach:
        """How far it looks, at most."""
        return Reach(FAR, FAR)

    @property
    def looks_ahead(self) -> bool:
        """Whether a query may see a later position; if not, the mask serves a decoder with a cache."""
        return self.reach.after > 0

    @property
    def is_local(self) -> bool:
        """Whether its reach is bounded both ways (sinks may be seen from anywhere)."""
        return self.reach.before < FAR and self.reach.after < FAR

    @property
    def rows(self) -> int | None:
        """The number of rows of the batch it was made for; None: any."""
        return None

    @property
    def size(self) -> int | None:
        """The number of positions it covers; None: all."""
        return None

    def mask(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        """The graph as a boolean matrix: (T, S), or (B, T, S) where positions or the mask differ by row.

        `pos_q` (T,) or (B, T), `pos_k` (S,) or (B, S). Raises `UsageError` when they do not fit `rows` or `size`.
        """
        self.check_fits(*(pos.shape[0] for pos in (pos_q, pos_k) if pos.dim() == 2))
        if not torch.compiler.is_compiling() and self.size is not None and pos_q.device.type == "cpu":
            last = int(torch.maximum(pos_q.max(), pos_k.max()))
            if last >= self.size:
                raise UsageError(f"position {last} is beyond the {self.size} positions of {self}; make it larger")
        zero = pos_q.new_zeros(())
        b = zero if self.rows is None else torch.arange(self.rows, device=pos_q.device)[:, None, None]
        pos_q, pos_k = pos_q.unsqueeze(-1), pos_k.unsqueeze(-2)
        allowed = self.mask_mod(b, zero, pos_q, pos_k)
        return allowed.expand(torch.broadcast_shapes(allowed.shape, pos_q.shape, pos_k.shape))

    def check_fits(self, *batch_sizes: int) -> None:
        """Raise `UsageError` unless the mask was made for batches of these sizes."""
        for B in batch_sizes:
            if self.rows not in (None, 1, B) and B != 1:
                raise UsageError(f"{self} was made for {self.rows} rows, the batch has {B}; give one entry per row")

    @property
    def needs_graph(self) -> bool:
        """Whether it follows edges that each row of a batch brings (`on_graph`)."""
        return False

    def on_graph(self, distances_BTT: Tensor) -> Mask:
        """The mask with the edges of a batch. distances: steps between the nodes of each row's graph, integers."""
        return self

    def draw(self, n_queries: int, n_keys: int | None = None) -> str:
        """The graph as the module's docstring shows it; rows of a batch one below the other.

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
        """As a recipe writes it: `window(64) | sinks(4)`; `parse_mask` reads it back unless it holds a tensor."""
        name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", type(self).__name__).lower()
        sizes = [_text(getattr(self, field)) for field in getattr(self, "__dataclass_fields__", ())]
        return name + (f"({', '.join(sizes)})" if sizes else "")

    def __and__(self, other: Mask) -> Mask:
        return And(self, other)

    def __or__(self, other: Mask) -> Mask:
        return Or(self, other)


@dataclass(frozen=True)
class Full(Mask):
    """Every query sees every key (an encoder)."""

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return torch.ones_like(q == k)


@dataclass(frozen=True)
class Causal(Mask):
    """A query sees itself and the past (a decoder)."""

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k <= q

    @property
    def reach(self) -> Reach:
        return Reach(FAR, 0)


@dataclass(frozen=True)
class Window(Mask):
    """The query itself and the `width - 1` positions before it (Mistral's sliding window)."""

    width: int

    def __post_init__(self) -> None:
        check_size("window width", self.width, 1, "a query sees at least itself")

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) & (k > q - self.width)

    @property
    def reach(self) -> Reach:
        return Reach(self.width - 1, 0)


@dataclass(frozen=True)
class BidirectionalWindow(Mask):
    """Positions at most `n` away on both sides: the window of an encoder (Longformer: Beltagy et al. 2020,
    https://arxiv.org/abs/2004.05150, figure 2b)."""

    n: int

    def __post_init__(self) -> None:
        check_size("distance", self.n, 0, "0 is the query alone")

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (q - k).abs() <= self.n

    @property
    def reach(self) -> Reach:
        return Reach(self.n, self.n)


@dataclass(frozen=True)
class Sinks(Mask):
    """The first `n` positions, as far as they are not ahead. Beside a window they keep long texts stable, because heads
    put unneeded attention there: Xiao et al. 2023, https://arxiv.org/abs/2309.17453."""

    n: int

    def __post_init__(self) -> None:
        check_size("number of sinks", self.n, 1, "without sinks leave the mask out")

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k < self.n) & (k <= q)

    @property
    def reach(self) -> Reach:
        return Reach(0, 0, self.n)


@dataclass(frozen=True, eq=False)
class Prefix(Mask):
    """PrefixLM: the first `n` positions see each other fully, the rest is causal. `n` is a number, or (B,) with one per
    row. Raffel et al. 2020, https://arxiv.org/abs/1910.10683, figure 4."""

    n: int | Tensor

    def __post_init__(self) -> None:
        if isinstance(self.n, Tensor):
            check_integers("prefix lengths", self.n, "(B,)", (1,))
        else:
            check_size("prefix length", self.n, 0, "0 is causal")

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q) | (k < (self.n[b] if isinstance(self.n, Tensor) else self.n))

    @property
    def reach(self) -> Reach:
        return Reach(FAR, FAR if isinstance(self.n, Tensor) else max(self.n - 1, 0))

    @property
    def rows(self) -> int | None:
        return self.n.shape[0] if isinstance(self.n, Tensor) else None

    def __eq__(self, other: object) -> bool:
        numbers = isinstance(other, Prefix) and isinstance(self.n, int) and isinstance(other.n, int)
        return self is other or (numbers and self.n == other.n)  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self.n)


@dataclass(frozen=True)
class _Pair(Mask):
    left: Mask
    right: Mask

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

    @property
    def needs_graph(self) -> bool:
        return self.left.needs_graph or self.right.needs_graph

    def on_graph(self, distances_BTT: Tensor) -> Mask:
        return type(self)(self.left.on_graph(distances_BTT), self.right.on_graph(distances_BTT))


@dataclass(frozen=True)
class And(_Pair):
    """`left & right`: the edges that both graphs have."""

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.left.mask_mod(b, h, q, k) & self.right.mask_mod(b, h, q, k)

    @property
    def reach(self) -> Reach:
        left, right = self.left.reach, self.right.reach  # the sinks of one may lie within the window of the other
        return Reach(min(left.before, right.before), min(left.after, right.after), max(left.sinks, right.sinks))

    def __str__(self) -> str:  # `&` binds tighter than `|`, and both join from the left
        left = f"({self.left})" if isinstance(self.left, Or) else str(self.left)
        right = f"({self.right})" if isinstance(self.right, _Pair) else str(self.right)
        return f"{left} & {right}"


@dataclass(frozen=True)
class Or(_Pair):
    """`left | right`: the edges that at least one of the graphs has."""

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.left.mask_mod(b, h, q, k) | self.right.mask_mod(b, h, q, k)

    @property
    def reach(self) -> Reach:
        return Reach(*(max(pair) for pair in zip(self.left.reach, self.right.reach, strict=True)))

    def __str__(self) -> str:
        right = f"({self.right})" if isinstance(self.right, Or) else str(self.right)
        return f"{self.left} | {right}"


def check_size(what: str, n: int, least: int, why: str) -> None:
    """Raise `UsageError` unless `least <= n < FAR`."""
    if n < least:
        raise UsageError(f"{what} {n} is too small; {why}: use {least} or more")
    if n >= FAR:
        raise UsageError(f"{what} {n} is too large; use less than {FAR}")


def check_integers(what: str, values: Tensor, shape: str, dims: tuple[int, ...]) -> None:
    if values.dtype.is_floating_point or values.dtype == torch.bool or values.dim() not in dims or not values.numel():
        given = f"{values.dtype} {tuple(values.shape)}"
        raise UsageError(f"{what} need a tensor of integers {shape}, not {given}; convert it with .long()")


def _text(value: int | Tensor) -> str:
    """A size, or a tensor: its numbers when they are few, else its shape."""
    if isinstance(value, Tensor):
        return str(value.tolist()) if value.dim() <= 1 and value.numel() <= 8 else " x ".join(map(str, value.shape))
    return str(value)
