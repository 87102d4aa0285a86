"""The shape, the statistics and the histogram of one tensor, and of the matrices that lie in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from glassformer.inspection.weights import format_of, is_compressed, matrix_of
from glassformer.models.parts import Axes, pieces_of, whole_axes

BINS = 24
HISTOGRAM_OF = 1 << 22
CHUNK = 1 << 18  # numbers that are looked at at a time: they stay in the processor's cache
STEPS = " ▁▂▃▄▅▆▇█"
SPARK = 12  # characters of a histogram in a table


@dataclass
class TensorRow:
    """A tensor, or a matrix that lies in it together with others.

    name: of the parameter. piece: which matrix of a fused one ("query", "gate"); "" is the whole. part: what it is
    part of. axes: in letters, "(3 H D, C)". dtype: of its numbers as they are kept. mean, std (of all numbers there
    are: divided by n), least, most, norm (root of the sum of squares), zeros (the share of them): summed in fp64.
    counts, edges: a histogram of `BINS` bins from the least to the most; that of a piece has the bins of the whole.
    Of a tensor of more than `HISTOGRAM_OF` numbers every k-th is in it, so that `counts.sum()` is less than `numel`.
    """

    name: str
    piece: str
    part: str
    axes: str
    shape: tuple[int, ...]
    dtype: str
    numel: int
    mean: float
    std: float
    least: float
    most: float
    zeros: float
    norm: float
    counts: np.ndarray
    edges: np.ndarray

    @property
    def place(self) -> tuple[str, str]:
        """(the block it stands in or "", its name there)."""
        head, dot, rest = self.name.rpartition("blocks.")
        number, _, short = rest.partition(".")
        return (f"{head}blocks.{number}", short) if dot else ("", self.name)

    @property
    def sparkline(self) -> str:
        """The histogram in `SPARK` characters, the highest bin full."""
        heights = self.counts.reshape(SPARK, -1).sum(axis=1)
        full = max(heights.max(), 1)
        return "".join(STEPS[math.ceil(h / full * (len(STEPS) - 1))] for h in heights.tolist())


def values_of(module: nn.Module, field: str) -> Tensor:
    """The numbers of a parameter, or those that a compressed layer stands for."""
    values: Tensor = matrix_of(module) if field == "weight" and is_compressed(module) else getattr(module, field)
    return values.detach()


def rows_of(model: nn.Module, name: str, module: nn.Module, field: str) -> list[TensorRow]:
    """The whole, and its pieces if it has several."""
    values = values_of(module, field)
    compressed = field == "weight" and is_compressed(module)
    kept = format_of(module) if compressed else str(values.dtype).removeprefix("torch.")
    pieces = pieces_of(model, name, values)
    low, high = (float(end) for end in values.aminmax())
    span = (low, high) if high > low else (low - 0.5, high + 0.5)  # around a single number as NumPy does it
    step = -(-values.numel() // HISTOGRAM_OF)
    sums = [_Sums.of(values[p.rows[0] : p.rows[1]] if p.rows else values, span, step) for p in pieces]
    edges = np.linspace(*span, BINS + 1)
    shape = tuple(values.shape)
    if len(pieces) == 1:
        return [sums[0].row(name, "", pieces[0].part, whole_axes(pieces), shape, kept, edges)]
    whole = _Sums.together(sums).row(name, "", "fused", whole_axes(pieces), shape, kept, edges)
    parts = [s.row(name, p.belongs_to, p.part, p.axes, p.shape, kept, edges) for p, s in zip(pieces, sums, strict=True)]
    return [whole, *parts]


@dataclass
class _Sums:
    """What the statistics of a tensor are made of."""

    n: int
    total: float
    squares: float
    zeros: int
    least: float
    most: float
    counts: np.ndarray

    @classmethod
    def of(cls, values: Tensor, span: tuple[float, float], step: int) -> _Sums:
        flat = values.reshape(-1)
        total = squares = 0.0
        nonzero = 0
        for chunk in flat.split(CHUNK):
            exact = chunk.double()
            total += float(exact.sum())
            squares += float(exact @ exact)
            nonzero += int(chunk.count_nonzero())
        counts = torch.zeros(BINS, dtype=torch.float64)
        for chunk in flat[::step].split(CHUNK):  # fp32 counts to 2^24 only
            counts += torch.histc(chunk.float(), BINS, *span).cpu()
        least, most = (float(end) for end in flat.aminmax())
        return cls(flat.numel(), total, squares, flat.numel() - nonzero, least, most, counts.long().numpy())

    @classmethod
    def together(cls, parts: Sequence[_Sums]) -> _Sums:
        return cls(
            sum(p.n for p in parts),
            sum(p.total for p in parts),
            sum(p.squares for p in parts),
            sum(p.zeros for p in parts),
            min(p.least for p in parts),
            max(p.most for p in parts),
            np.sum([p.counts for p in parts], axis=0),
        )

    def row(
        self, name: str, piece: str, part: str, axes: Axes, shape: tuple[int, ...], dtype: str, edges: np.ndarray
    ) -> TensorRow:
        mean = self.total / self.n
        return TensorRow(
            name=name,
            piece=piece,
            part=part,
            axes=f"({', '.join(axes)})",
            shape=shape,
            dtype=dtype,
            numel=self.n,
            mean=mean,
            std=math.sqrt(max(self.squares / self.n - mean * mean, 0.0)),
            least=self.least,
            most=self.most,
            zeros=self.zeros / self.n,
            norm=math.sqrt(self.squares),
            counts=self.counts,
            edges=edges,
        )


__all__ = ["BINS", "HISTOGRAM_OF", "TensorRow", "rows_of", "values_of"]
