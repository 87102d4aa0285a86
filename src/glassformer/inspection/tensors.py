"""The numbers that a model is made of: every tensor with its shape, its statistics and a histogram.

print(tensors(model))                                     all of them, the first block's in full
print(tensors(model, "blocks.*.attention.qkv*"))          some
print(tensors(model, "blocks.0.attention.qkv.weight"))    one, with a picture of it
"""

from __future__ import annotations

import fnmatch
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from torch import Tensor, nn

from glassformer.errors import UsageError, did_you_mean, plural
from glassformer.figures import Column, Curves, Figure, HeatMap, Note, Table
from glassformer.inspection.options import view
from glassformer.inspection.views import View
from glassformer.inspection.weights import format_of, is_compressed, matrix_of, weights
from glassformer.models.parts import pieces_of, whole_axes
from glassformer.view_options import Option

BINS = 24
HISTOGRAM_OF = 1 << 22
CHUNK = 1 << 18  # numbers that are read at a time: they stay in the processor's cache
STEPS = " ▁▂▃▄▅▆▇█"
SPARK = 12  # characters of a histogram in a table
SHOWN = 48  # tensors that are drawn; the data has all of them
OVERVIEW = (64, 32)  # rows and columns of a picture of a matrix
CORNER = 8
LETTERS = {
    "V": "vocabulary", "C": "channels", "T": "positions", "H": "heads", "K": "key-value heads",
    "D": "width of a head", "F": "hidden neurons", "E": "experts", "G": "segments", "N": "classes",
    "R": "buckets of distances", "P": "width of a patch",
}  # fmt: skip


@dataclass
class TensorRow:
    """A tensor, or one of several matrices in it."""

    name: str  # of the parameter
    piece: str  # which matrix of a fused one ("query", "gate"); "" is the whole
    part: str  # of the model
    axes: str  # in letters, "(3 H D, C)"
    shape: tuple[int, ...]
    dtype: str  # of its numbers as they are kept
    numel: int
    mean: float  # summed in fp64, as the next ones
    std: float  # divided by n
    least: float
    most: float
    zeros: float  # the share of them
    norm: float  # root of the sum of squares
    counts: np.ndarray  # histogram; of more than `HISTOGRAM_OF` numbers every k-th is in it
    edges: np.ndarray  # of its bins, from the least to the most; a piece has those of the whole

    @property
    def place(self) -> tuple[str, str]:
        """(the block it stands in or "", its name there)."""
        head, dot, rest = self.name.rpartition("blocks.")
        number, _, short = rest.partition(".")
        return (f"{head}blocks.{number}", short) if dot else ("", self.name)

    @property
    def label(self) -> str:
        """What it is called in a table."""
        return f"  {self.piece}" if self.piece else self.place[1].removesuffix(".weight")

    @property
    def sparkline(self) -> str:
        """The histogram in `SPARK` characters, the highest bin full."""
        return sparkline(self.counts)


def sparkline(counts: np.ndarray) -> str:
    """A histogram of `BINS` in `SPARK` characters, the highest bin full."""
    heights = counts.reshape(SPARK, -1).sum(axis=1)
    full = max(heights.max(), 1)
    return "".join(STEPS[math.ceil(h / full * (len(STEPS) - 1))] for h in heights.tolist())


@dataclass
class TensorsView(View):
    """Tensors in the order of the modules; below a fused one its matrices. Of a single tensor also a picture."""

    tensors: list[TensorRow]
    overview: np.ndarray | None = None  # the tensor as a matrix, in at most 64 x 32 cells, each the mean of its numbers
    cell: tuple[int, int] | None = None  # rows and columns of the matrix in one cell; the last may hold fewer
    corner: np.ndarray | None = None  # its first 8 x 8 numbers

    def figures(self) -> list[Figure]:
        if self.overview is not None:
            return [*_tables(self.tensors[0].name, self.tensors), *self._picture()]
        whole = [row for row in self.tensors if not row.piece]
        used = {letter for row in self.tensors for letter in re.findall(r"\b[A-Z]\b", row.axes)}
        letters = ", ".join(f"{letter} {name}" for letter, name in LETTERS.items() if letter in used)
        total = f"{plural(len(whole), 'tensor')}, {sum(row.numel for row in whole):,} numbers. Axes: {letters}."
        figures: list[Figure] = [Note(total)]
        groups: dict[str, list[TensorRow]] = {}
        for row in self.tensors:
            groups.setdefault(row.place[0], []).append(row)
        shown = list(groups) if len(self.tensors) <= SHOWN else [n for n in groups if not n or n.endswith("blocks.0")]
        for name in shown:
            figures += _tables(name or "Outside the blocks", groups[name][:SHOWN])
        if len(shown) < len(groups) or sum(map(bool, groups)) > 1:
            figures += self._over_layers()
        if len(shown) < len(groups):
            figures.append(Note(f"{len(groups) - len(shown)} more blocks: ask for them by pattern, or see `.tensors`."))
        return figures

    def _over_layers(self) -> list[Figure]:
        """How the spread of each tensor of a block changes with depth, a figure for each stack of blocks."""
        stacks: dict[str, dict[str, list[float]]] = {}
        for row in self.tensors:
            block, name = row.place[0], row.place[1].removesuffix(".weight")
            if block and not row.name.endswith("bias"):
                if row.piece:
                    name = f"{name.rpartition('.')[2]}:{row.piece.removeprefix('cross ')}"
                stacks.setdefault(block.rpartition("blocks.")[0], {}).setdefault(name, []).append(row.std)
        figures: list[Figure] = []
        for stack, lines in stacks.items():
            deep = {name: line for name, line in lines.items() if len(line) > 1}
            if deep:
                x = range(max(map(len, deep.values())))
                figures.append(Curves.over(f"{stack}blocks: spread (std) by layer", x, deep, "layer", "std"))
        return figures

    def _picture(self) -> list[Figure]:
        assert self.overview is not None and self.cell is not None and self.corner is not None
        row, (down, across) = self.tensors[0], self.cell
        cells = "every number" if down == across == 1 else f"each cell the mean of {down} x {across} numbers"
        return [
            histogram(row.counts, row.edges),
            matrix_map(f"All of it, {cells}", self.overview, down, across, 2),
            *(
                []
                if down == across == 1
                else [matrix_map("Its upper left corner, number by number", self.corner, 1, 1, 3)]
            ),
        ]


def histogram(counts: np.ndarray, edges: np.ndarray) -> Table:
    """How numbers are spread, a row a bin."""
    columns = Column("from", "number", 4), Column("to", "number", 4), Column("of all", "share", role="weights")
    shares = (counts / counts.sum()).tolist()
    return Table("How its numbers are spread", columns, list(zip(edges[:-1], edges[1:], shares, strict=True)))


def matrix_map(title: str, values: np.ndarray, down: int, across: int, digits: int) -> HeatMap:
    rows, columns = ([str(i * step) for i in range(n)] for n, step in zip(values.shape, (down, across), strict=True))
    return HeatMap(title, values, rows, columns, "row", "column", "weights", signed=True, digits=digits)


def _tables(title: str, rows: Sequence[TensorRow]) -> list[Figure]:
    some_zeros = any(row.zeros for row in rows)
    shapes = [
        (row.label, row.axes, f"({', '.join(f'{n:,}' for n in row.shape)})", row.dtype, row.numel) for row in rows
    ]
    numbers = []
    for row in rows:
        zeros = [f"{100 * row.zeros:.3g} %"] if some_zeros else []
        numbers.append((row.label, row.mean, row.std, f"{row.least:.2g} … {row.most:.2g}", *zeros, row.sparkline))
    columns = [Column("tensor"), Column("mean", "number"), Column("std", "number"), Column("least … most")]
    columns += [*([Column("zeros")] if some_zeros else []), Column("histogram")]
    axes = [Column(name) for name in ("tensor", "axes", "shape", "kept as")]
    return [
        Table(f"{title}: shapes", [*axes, Column("numbers", "count")], shapes),
        Table(f"{title}: numbers", columns, numbers),
    ]


@view('glassformer look tensors runs/demo-1 "blocks.0.*"')
def tensors(
    model: nn.Module,
    pattern: Annotated[str, Option("A name, or a pattern such as 'blocks.0.*'.")] = "*",
) -> TensorsView:
    """Every parameter whose name matches a shell-style pattern, and each matrix of a fused one by itself.

    A tensor given by its full name is also drawn. Matrices of 8 or 4 bits are shown dequantized.

    Raises:
        UsageError: nothing matches; the nearest name is given.
    """
    known = list(weights(model))
    one = _full_name(model, pattern)
    chosen = [each for each in known if (each[0] == one if one else fnmatch.fnmatchcase(each[0], pattern))]
    if not chosen:
        raise UsageError(f"no tensor is called {pattern!r}; {did_you_mean(pattern, [name for name, _, _ in known])}")
    found = TensorsView([row for name, module, field in chosen for row in _rows(model, name, module, field)])
    if one:
        values = _values(*chosen[0][1:]).detach().float().cpu()
        matrix = values.reshape(len(values), -1) if values.dim() > 1 else values.reshape(1, -1)
        found.overview, found.cell = averaged(matrix)
        found.corner = matrix[:CORNER, :CORNER].numpy().copy()
    return found


def _full_name(model: nn.Module, name: str) -> str | None:
    """The name under which a parameter is listed (a tied head has two), or None if this is a pattern."""
    if name in (known := {each for each, _, _ in weights(model)}):
        return name
    alias = dict(model.named_parameters(remove_duplicate=False)).get(name)
    return next((each for each, parameter in model.named_parameters() if parameter is alias and each in known), None)


def _values(module: nn.Module, field: str) -> Tensor:
    """The numbers of a parameter, or those that a compressed layer stands for."""
    values: Tensor = matrix_of(module) if field == "weight" and is_compressed(module) else getattr(module, field)
    return values.detach()


def _rows(model: nn.Module, name: str, module: nn.Module, field: str) -> list[TensorRow]:
    """The whole, and its pieces if it has several."""
    values = _values(module, field)
    dtype = format_of(module) if field == "weight" and is_compressed(module) else str(values.dtype).partition(".")[2]
    pieces = pieces_of(model, name, values)
    low, high = (float(end) for end in values.aminmax())
    span = (low, high) if high > low else (low - 0.5, high + 0.5)  # around a single number as NumPy does it
    step = -(-values.numel() // HISTOGRAM_OF)
    parts = [_sums(values[p.rows[0] : p.rows[1]] if p.rows else values, span, step) for p in pieces]

    def row(sums: dict[str, Any], piece: str, part: str, axes: Sequence[str], shape: tuple[int, ...]) -> TensorRow:
        n, mean = sums["n"], sums["total"] / sums["n"]
        return TensorRow(
            name=name, piece=piece, part=part, axes=f"({', '.join(axes)})", shape=shape, dtype=dtype, numel=n,
            mean=mean, std=math.sqrt(max(sums["squares"] / n - mean * mean, 0.0)), least=sums["least"],
            most=sums["most"], zeros=sums["zeros"] / n, norm=math.sqrt(sums["squares"]), counts=sums["counts"],
            edges=np.linspace(*span, BINS + 1),
        )  # fmt: skip

    if len(pieces) == 1:
        return [row(parts[0], "", pieces[0].part, whole_axes(pieces), tuple(values.shape))]
    whole: dict[str, Any] = {name: sum(sums[name] for sums in parts) for name in ("n", "total", "squares", "zeros")}
    whole |= {"least": low, "most": high, "counts": np.sum([sums["counts"] for sums in parts], axis=0)}
    rows = [row(sums, p.belongs_to, p.part, p.axes, p.shape) for p, sums in zip(pieces, parts, strict=True)]
    return [row(whole, "", "fused", whole_axes(pieces), tuple(values.shape)), *rows]


def _sums(values: Tensor, span: tuple[float, float], step: int) -> dict[str, Any]:
    """What the statistics of a tensor are made of."""
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
    numbers = {"n": flat.numel(), "total": total, "squares": squares, "zeros": flat.numel() - nonzero}
    return {**numbers, "least": least, "most": most, "counts": counts.long().numpy()}


def averaged(matrix_RC: Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """At most 64 x 32 means of neighbouring numbers, and of how many rows and columns each."""
    (rows, columns), (max_rows, max_columns) = matrix_RC.shape, OVERVIEW
    if rows == 1:  # a vector may be as wide as a matrix is high
        max_columns = max_rows
    down, across = -(-rows // max_rows), -(-columns // max_columns)
    bands = [band.mean(dim=0) for band in matrix_RC.split(down)]
    cells = [part.mean(dim=1) for part in torch.stack(bands).split(across, dim=1)]
    return torch.stack(cells, dim=1).numpy(), (down, across)
