"""Masks made for one batch or one graph: they hold a tensor.

With (B,) or (B, T) tensors, row b of the batch has the graph of entry b.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.layers.masks import FAR, Mask, Reach, check_integers, check_size


@dataclass(frozen=True, eq=False)
class PaddingMask(Mask):
    """Sequences of unequal length, padded on the right: keys from position `lengths_B[b]` on are not seen.

    A row of length 0 sees nothing. The output at a padded query is meaningless and must not be used.
    """

    lengths_B: Tensor

    def __post_init__(self) -> None:
        check_integers("lengths", self.lengths_B, "(B,)", (1,))

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return k < self.lengths_B[b]  # (B, 1, S)

    @property
    def rows(self) -> int | None:
        return self.lengths_B.shape[0]


@dataclass(frozen=True, eq=False)
class Documents(Mask):
    """Only within one document, where several are packed into one row: `ids_BT[b, p]` is the document of position p.

    `ids_BT` is (B, T), or (T,) when all rows agree; a document may continue after another one. `Causal() &
    Documents(ids_BT)` trains a decoder on packed texts (Llama 3, https://arxiv.org/abs/2407.21783, section 3.2).
    """

    ids_BT: Tensor

    def __post_init__(self) -> None:
        check_integers("documents", self.ids_BT, "(T,) or (B, T)", (1, 2))

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        ids_BT = self.ids_BT
        return ids_BT[q] == ids_BT[k] if ids_BT.dim() == 1 else ids_BT[b, q] == ids_BT[b, k]

    @cached_property
    def lengths(self) -> list[int] | None:
        """How many tokens each document has, in order; None where there are several rows, or one is in pieces."""
        if self.ids_BT.dim() == 2:
            return None
        ids, counts = self.ids_BT.unique_consecutive(return_counts=True)
        return counts.tolist() if len(ids) == len(ids.unique()) else None  # type: ignore[no-any-return]

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
            return Reach(FAR, FAR)  # reading it would make the device wait, or recompile for each batch
        return Reach(self.longest - 1, self.longest - 1)

    @property
    def rows(self) -> int | None:
        return self.ids_BT.shape[0] if self.ids_BT.dim() == 2 else None

    @property
    def size(self) -> int | None:
        return self.ids_BT.shape[-1]


@dataclass(frozen=True, eq=False)
class GraphMask(Mask):
    """Any graph: `may_NN[i, j]`: whether position i may attend to position j; with (B, N, N) one for each row.

    >>> ring = GraphMask.of([(0, 1), (1, 2), (2, 0)], n=3)
    >>> print(ring.draw(3))
    . x .
    . . x
    x . .
    """

    may_NN: Tensor

    def __post_init__(self) -> None:
        shape = tuple(self.may_NN.shape)
        if self.may_NN.dtype != torch.bool or len(shape) not in (2, 3) or shape[-1] != shape[-2]:
            given = f"{self.may_NN.dtype} {shape}"
            raise UsageError(
                f"a graph is a boolean matrix (N, N) or (B, N, N), not {given}; or use GraphMask.of(pairs, n=N)"
            )

    @classmethod
    def of(cls, pairs: Iterable[tuple[int, int]], *, n: int, both_ways: bool = False, loops: bool = False) -> GraphMask:
        """From an edge list over positions 0 to n - 1: for each pair (i, j), i may attend to j.

        `both_ways`: and j to i. `loops`: and each position to itself. Raises `UsageError` for a position outside.
        """
        may_NN = torch.eye(n, dtype=torch.bool) if loops else torch.zeros(n, n, dtype=torch.bool)
        for i, j in pairs:
            if not (0 <= i < n and 0 <= j < n):
                raise UsageError(f"edge ({i}, {j}) leaves the positions 0 to {n - 1}; give a larger n")
            may_NN[i, j] = True
            may_NN[j, i] |= both_ways
        return cls(may_NN)

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return self.may_NN[q, k] if self.may_NN.dim() == 2 else self.may_NN[b, q, k]

    @cached_property
    def _longest(self) -> tuple[int, int]:
        """How far the longest edge goes back, and ahead."""
        i, j = self.may_NN.nonzero(as_tuple=True)
        return (max(int((i - j).max()), 0), max(int((j - i).max()), 0)) if len(i) else (0, 0)

    @property
    def reach(self) -> Reach:
        if self.may_NN.device.type != "cpu" or torch.compiler.is_compiling() or self.may_NN.dim() == 3:
            return Reach(FAR, FAR)
        return Reach(*self._longest)

    @property
    def rows(self) -> int | None:
        return self.may_NN.shape[0] if self.may_NN.dim() == 3 else None

    @property
    def size(self) -> int | None:
        return self.may_NN.shape[-1]


@dataclass(frozen=True)
class Graph(Mask):
    """The graph that each row of a batch brings along, such as the bonds of a molecule, or the grid of an image: a node
    attends to itself and to nodes at most `n` edges away. `on_graph` makes a `GraphMask` of it. Message passing is
    attention along edges (Velickovic et al. 2017, https://arxiv.org/abs/1710.10903, sect. 2.1)."""

    n: int

    def __post_init__(self) -> None:
        check_size("number of edges", self.n, 1, "a node sees its neighbours")

    def mask_mod(self, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        raise UsageError(f"{self} needs the distances of each row's graph; give distances_BTT to the model")

    @property
    def needs_graph(self) -> bool:
        return True

    def on_graph(self, distances_BTT: Tensor) -> Mask:
        return GraphMask((distances_BTT >= 0) & (distances_BTT <= self.n))
