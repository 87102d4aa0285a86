"""The numbers that a model is made of: every tensor with its shape, its statistics and a histogram.

print(tensors(model))                               all of them, the first block's in full
print(tensors(model, "blocks.*.attention.qkv*"))    some
print(tensor(model, "blocks.0.attention.qkv.weight"))
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import UsageError, did_you_mean, plural
from glassformer.figures import Column, Curves, Figure, HeatMap, Note, Table
from glassformer.inspection.options import view
from glassformer.inspection.tensor_rows import TensorRow, rows_of, values_of
from glassformer.inspection.views import View
from glassformer.inspection.weights import weights

SHOWN = 48  # tensors that are drawn; the data has all of them
OVERVIEW = (64, 32)  # rows and columns of a picture of a matrix
CORNER = 8
LETTERS = {
    "V": "vocabulary", "C": "channels", "T": "positions", "H": "heads", "K": "key-value heads",
    "D": "width of a head", "F": "hidden neurons", "E": "experts", "G": "segments", "N": "classes",
    "R": "buckets of distances", "P": "width of a patch",
}  # fmt: skip


@dataclass
class TensorsView(View):
    """Tensors in the order of the modules; below a fused one its matrices."""

    tensors: list[TensorRow]

    def figures(self) -> list[Figure]:
        whole = [row for row in self.tensors if not row.piece]
        used = {letter for row in self.tensors for letter in re.findall(r"\b[A-Z]\b", row.axes)}
        letters = ", ".join(f"{letter} {name}" for letter, name in LETTERS.items() if letter in used)
        made: list[Figure] = [
            Note(f"{plural(len(whole), 'tensor')}, {sum(row.numel for row in whole):,} numbers. Axes: {letters}.")
        ]
        groups: dict[str, list[TensorRow]] = {}
        for row in self.tensors:
            groups.setdefault(row.place[0], []).append(row)
        blocks = [name for name in groups if name]
        shown = list(groups) if len(self.tensors) <= SHOWN else [n for n in groups if not n or n.endswith("blocks.0")]
        for name in shown:
            made += _tables(name, groups[name][:SHOWN])
        if len(shown) < len(groups) or len(blocks) > 1:
            made += self._over_layers(blocks)
        if len(shown) < len(groups):
            made.append(Note(f"{len(groups) - len(shown)} more blocks: ask for them by pattern, or see `.tensors`."))
        return made

    def _over_layers(self, blocks: Sequence[str]) -> list[Figure]:
        """How the spread of each tensor of a block changes with depth, a figure a stack."""
        stacks = dict.fromkeys(name.rpartition("blocks.")[0] for name in blocks)
        made: list[Figure] = []
        for stack in stacks:
            lines: dict[str, list[float]] = {}
            for row in self.tensors:
                if row.place[0].startswith(f"{stack}blocks.") and not row.name.endswith("bias"):
                    name = row.place[1].removesuffix(".weight")
                    if row.piece:
                        name = f"{name.rpartition('.')[2]}:{row.piece.removeprefix('cross ')}"
                    lines.setdefault(name, []).append(row.std)
            deep: dict[str, Sequence[float]] = {name: line for name, line in lines.items() if len(line) > 1}
            if deep:
                x = list(range(max(map(len, deep.values()))))
                made.append(Curves.over(f"{stack}blocks: spread (std) by layer", x, deep, "layer", "std"))
        return made


def _shown_name(row: TensorRow) -> str:
    return f"  {row.piece}" if row.piece else row.place[1].removesuffix(".weight")


def _tables(group: str, rows: Sequence[TensorRow]) -> list[Figure]:
    names = [_shown_name(row) for row in rows]
    shapes = [
        (name, row.axes, "(" + ", ".join(f"{n:,}" for n in row.shape) + ")", row.dtype, row.numel)
        for name, row in zip(names, rows, strict=True)
    ]
    some_zeros = any(row.zeros for row in rows)
    numbers = []
    for name, row in zip(names, rows, strict=True):
        zeros = [f"{100 * row.zeros:.3g} %"] if some_zeros else []
        numbers.append((name, row.mean, row.std, f"{row.least:.2g} … {row.most:.2g}", *zeros, row.sparkline))
    columns = [Column("tensor"), Column("mean", "number"), Column("std", "number"), Column("least … most")]
    columns += [Column("zeros")] if some_zeros else []
    title = group or "Outside the blocks"
    return [
        Table(
            f"{title}: shapes",
            (Column("tensor"), Column("axes"), Column("shape"), Column("kept as"), Column("numbers", "count")),
            shapes,
        ),
        Table(f"{title}: numbers", (*columns, Column("histogram")), numbers),
    ]


@dataclass
class TensorView(View):
    """One tensor.

    row: its shape and statistics. pieces: of a fused one, its matrices. overview: the whole tensor, as a matrix (its
    first axis, all others), in at most 64 x 32 cells, each the mean of its numbers; cell: how many rows and columns of
    the matrix fall into one (the last may hold fewer). corner: its first 8 x 8 numbers.
    """

    row: TensorRow
    pieces: list[TensorRow]
    overview: np.ndarray
    cell: tuple[int, int]
    corner: np.ndarray

    def figures(self) -> list[Figure]:
        name, (down, across) = self.row.name, self.cell
        made = _tables(name, [self.row, *self.pieces])
        made.append(
            Table(
                "How its numbers are spread",
                (Column("from", "number", 4), Column("to", "number", 4), Column("of all", "share", role="weights")),
                [
                    (self.row.edges[i], self.row.edges[i + 1], count / self.row.counts.sum())
                    for i, count in enumerate(self.row.counts.tolist())
                ],
            )
        )
        rows = [str(i * down) for i in range(self.overview.shape[0])]
        columns = [str(i * across) for i in range(self.overview.shape[1])]
        cells = "every number" if down == across == 1 else f"each cell the mean of {down} x {across} numbers"
        made.append(
            HeatMap(f"All of it, {cells}", self.overview, rows, columns, "row", "column", "weights", signed=True)
        )
        if (down, across) != (1, 1):
            h, w = self.corner.shape
            places = [str(i) for i in range(CORNER)]
            made.append(
                HeatMap(
                    "Its upper left corner, number by number",
                    self.corner,
                    places[:h],
                    places[:w],
                    "row",
                    "column",
                    "weights",
                    signed=True,
                    digits=3,
                )
            )
        return made


@view('glassformer look tensors runs/demo-1 "blocks.0.*"')
def tensors(
    model: nn.Module,
    pattern: Annotated[str, Field(description="A name, or a pattern such as 'blocks.0.*'.")] = "*",
) -> TensorsView | TensorView:
    """Every parameter whose name matches the shell-style `pattern`, and each matrix of a fused one by itself.

    A tensor that is there under two names (a tied head) is told under the first. Matrices kept in 8 or 4 bits are told
    as the numbers that they stand for. Every number is looked at, about 30 million a second and processor.

    Raises:
        UsageError: nothing matches; the nearest name is told.
    """
    if pattern in dict(model.named_parameters()):
        return tensor(model, pattern)
    known = list(weights(model))
    chosen = [each for each in known if fnmatch.fnmatchcase(each[0], pattern)]
    if not chosen:
        raise UsageError(f"no tensor is called {pattern!r}; {did_you_mean(pattern, [name for name, _, _ in known])}")
    return TensorsView([row for name, module, field in chosen for row in rows_of(model, name, module, field)])


def tensor(model: nn.Module, name: str) -> TensorView:
    """One parameter by its full name (of one that has two, either), with a picture of it.

    Raises:
        UsageError: there is no such tensor.
    """
    known = {each[0]: each for each in weights(model)}
    alias = dict(model.named_parameters(remove_duplicate=False)).get(name)
    if name not in known and alias is not None:
        name = next(first for first, parameter in model.named_parameters() if parameter is alias)
    if name not in known:
        raise UsageError(f"no tensor is called {name!r}; {did_you_mean(name, known)}")
    _, module, field = known[name]
    values = values_of(module, field).detach().float().cpu()
    matrix = values.reshape(len(values), -1) if values.dim() > 1 else values.reshape(1, -1)
    overview, cell = _averaged(matrix)
    row, *pieces = rows_of(model, name, module, field)
    return TensorView(row, pieces, overview, cell, matrix[:CORNER, :CORNER].numpy().copy())


def _averaged(matrix_RC: Tensor) -> tuple[np.ndarray, tuple[int, int]]:
    """At most 64 x 32 means of neighbouring numbers, and of how many rows and columns each."""
    (rows, columns), (most_rows, most_columns) = matrix_RC.shape, OVERVIEW
    if rows == 1:  # a vector may be as wide as a matrix is high
        most_columns = most_rows
    down, across = -(-rows // most_rows), -(-columns // most_columns)
    bands = [band.mean(dim=0) for band in matrix_RC.split(down)]
    cells = [part.mean(dim=1) for part in torch.stack(bands).split(across, dim=1)]
    return torch.stack(cells, dim=1).numpy(), (down, across)


__all__ = ["TensorView", "TensorsView", "tensor", "tensors"]
