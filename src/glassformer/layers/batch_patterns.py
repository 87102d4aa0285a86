"""Patterns made for one batch or one graph: they hold a tensor.

    Prefix       the first n positions (a number, or one a row) see each other fully, the rest is causal
    Documents    only within one document, where several are packed into a row
    Lengths      padding on the right is seen by nobody
    Edges        any graph at all

Two of them are equal when their tensors are. With (B,) or (B, T) tensors, row b of the batch has the graph of entry b.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.layers.pattern_base import FAR, Pattern, Reach, check_size


class _ByValue(Pattern):
    """Comparison of frozen dataclasses with tensor fields (`==` on tensors is not a yes or no)."""

    def _values(self) -> list[object]:
        return [getattr(self, field.name) for field in dataclasses.fields(self)]  # type: ignore[arg-type]

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(a, b) for a, b in zip(self._values(), other._values(), strict=True))

    def __hash__(self) -> int:
        return hash((type(self), *(tuple(v.shape) if isinstance(v, Tensor) else v for v in self._values())))


def _same(a: object, b: object) -> bool:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.device == b.device and torch.equal(a, b)
    return not isinstance(a, Tensor) and not isinstance(b, Tensor) and a == b


@dataclass(frozen=True, eq=False)
class Prefix(_ByValue):
    """PrefixLM: everybody sees the first `n` positions, each other included, and what is not ahead (a question read as
    a whole, an answer written causally). `n` is a number, or (B,) with one a row. Raffel et al. 2020,
    https://arxiv.org/abs/1910.10683, figure 4."""

    n: int | Tensor

    def __post_init__(self) -> None:
        if isinstance(self.n, Tensor):
            _check_integers("prefix", self.n, "(B,)", (0, 1))
        else:
            check_size("prefix length", self.n, 0, "0 is causal")

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return (pos_k <= pos_q) | (pos_k < _a_row(self.n))

    @property
    def reach(self) -> Reach:
        return Reach(FAR, FAR if isinstance(self.n, Tensor) else max(self.n - 1, 0))

    @property
    def rows(self) -> int | None:
        return self.n.shape[0] if isinstance(self.n, Tensor) and self.n.dim() else None

    def in_row(self, row: int | Tensor) -> Pattern:
        return Prefix(self.n[row]) if isinstance(self.n, Tensor) and self.n.dim() else self


@dataclass(frozen=True, eq=False)
class Lengths(_ByValue):
    """Sequences of unequal length, padded on the right: nobody sees the positions from `lengths_B` (B,) on.

    A row of length 0 sees nothing. What a query in the padding hears is of no use and must not be used.
    """

    lengths_B: Tensor

    def __post_init__(self) -> None:
        _check_integers("lengths", self.lengths_B, "(B,)", (0, 1))

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return pos_k < _a_row(self.lengths_B)  # (B, 1, S)

    @property
    def rows(self) -> int | None:
        return self.lengths_B.shape[0] if self.lengths_B.dim() else None

    def in_row(self, row: int | Tensor) -> Pattern:
        return Lengths(self.lengths_B[row]) if self.rows else self


@dataclass(frozen=True, eq=False)
class Documents(_ByValue):
    """Only within one document, where several are packed into one row: `ids_BT[b, p]` is the document of position p.

    `ids_BT` is (B, T), or (T,) when all rows agree; documents may return. `Causal() & Documents(ids_BT)` trains a
    decoder on packed texts (GPT-3 mixed them; Llama 3, https://arxiv.org/abs/2407.21783, section 3.2, does not).
    """

    ids_BT: Tensor

    def __post_init__(self) -> None:
        _check_integers("documents", self.ids_BT, "(T,) or (B, T)", (1, 2))

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        if self.ids_BT.dim() == 1:
            return self.ids_BT[pos_q] == self.ids_BT[pos_k]
        rows = torch.arange(self.ids_BT.shape[0], device=self.ids_BT.device)[:, None, None]
        return self.ids_BT[rows, pos_q] == self.ids_BT[rows, pos_k]

    @cached_property
    def longest(self) -> int:
        """From the first position of a document to its last, at the most."""
        ids_BT = self.ids_BT.reshape(-1, self.ids_BT.shape[-1])
        B, T = ids_BT.shape
        order = ids_BT.sort(dim=1, stable=True)
        starts = torch.ones_like(ids_BT, dtype=torch.bool)
        starts[:, 1:] = order.values[:, 1:] != order.values[:, :-1]
        runs = (starts.flatten().cumsum(0) - 1).view(B, T)  # the runs of equal ids, numbered through all rows
        first, last = (order.indices.new_zeros(int(runs[-1, -1]) + 1) for _ in range(2))
        first.scatter_reduce_(0, runs.flatten(), order.indices.flatten(), "amin", include_self=False)
        last.scatter_reduce_(0, runs.flatten(), order.indices.flatten(), "amax", include_self=False)
        return int((last - first).max()) + 1

    @property
    def reach(self) -> Reach:
        if self.ids_BT.device.type != "cpu" or torch.compiler.is_compiling():
            return Reach(FAR, FAR)  # to look would make the device wait, or compile anew for each batch
        return Reach(self.longest - 1, self.longest - 1)

    @property
    def rows(self) -> int | None:
        return self.ids_BT.shape[0] if self.ids_BT.dim() == 2 else None

    @property
    def size(self) -> int | None:
        return self.ids_BT.shape[-1]

    def in_row(self, row: int | Tensor) -> Pattern:
        return Documents(self.ids_BT[row]) if self.rows else self


@dataclass(frozen=True, eq=False)
class Edges(_ByValue):
    """Any graph: `may_NN[i, j]` tells whether position i may look at position j.

    >>> ring = Edges.of([(0, 1), (1, 2), (2, 0)], n=3)
    >>> print(ring.draw(3))
    . x .
    . . x
    x . .
    """

    may_NN: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.may_NN.shape)
        if self.may_NN.dtype != torch.bool or len(shape) != 2 or shape[0] != shape[1]:
            raise UsageError(
                f"edges are a boolean matrix (N, N), not {self.may_NN.dtype} {shape}; or use Edges.of(pairs, n=N)"
            )

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], *, n: int, both_ways: bool = False, loops: bool = False) -> Edges:
        """From an edge list over positions 0 to n - 1: for each pair (i, j), i may look at j.

        `both_ways`: and j at i. `loops`: and everybody at itself. Raises `UsageError` for a position outside.
        """
        pairs = list(pairs)
        for i, j in pairs:
            if not (0 <= i < n and 0 <= j < n):
                raise UsageError(f"edge ({i}, {j}) leaves the positions 0 to {n - 1}; give a larger n")
        may_NN = torch.eye(n, dtype=torch.bool) if loops else torch.zeros(n, n, dtype=torch.bool)
        for i, j in pairs:
            may_NN[i, j] = True
            may_NN[j, i] |= both_ways
        return cls(may_NN)

    def allows(self, pos_q: Tensor, pos_k: Tensor) -> Tensor:
        return self.may_NN[pos_q, pos_k]

    @cached_property
    def _longest(self) -> tuple[int, int]:
        """How far the longest edge goes back, and ahead."""
        i, j = self.may_NN.nonzero(as_tuple=True)
        return (max(int((i - j).max()), 0), max(int((j - i).max()), 0)) if len(i) else (0, 0)

    @property
    def reach(self) -> Reach:
        if self.may_NN.device.type != "cpu" or torch.compiler.is_compiling():
            return Reach(FAR, FAR)
        return Reach(*self._longest)

    @property
    def size(self) -> int | None:
        return self.may_NN.shape[0]


def _a_row(n: int | Tensor) -> int | Tensor:
    """One number a row, (B,), made to broadcast against (B, T, S)."""
    return n[:, None, None] if isinstance(n, Tensor) and n.dim() else n


def _check_integers(what: str, values: Tensor, shape: str, dims: tuple[int, ...]) -> None:
    if values.dtype.is_floating_point or values.dtype == torch.bool or values.dim() not in dims or not values.numel():
        given = f"{values.dtype} {tuple(values.shape)}"
        raise UsageError(f"{what} need a tensor of integers {shape}, not {given}; convert it with .long()")
