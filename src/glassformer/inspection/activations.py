"""Every tensor that a text becomes on its way through a model: one row for each tap.

print(activations(model, tokenizer, "To be"))                                   all of them
print(activations(model, tokenizer, "To be", "blocks.0.attention.*"))           some
print(activations(model, tokenizer, "To be", "blocks.0.attention.pattern"))     one, with a picture of it
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Annotated, Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, did_you_mean, plural
from glassformer.figures import Column, Figure, Note, Table
from glassformer.inspection.options import view
from glassformer.inspection.reading import read
from glassformer.inspection.tensors import BINS, averaged, histogram, matrix_map, sparkline
from glassformer.inspection.trace import axes_of, tap_names, trace
from glassformer.inspection.views import View
from glassformer.processors.tokenizers import Tokenizer
from glassformer.view_options import Option, Target, TextOrImage

LETTERS = {
    "B": "batch", "T": "query positions", "S": "key positions", "C": "channels", "H": "heads",
    "K": "key-value heads", "D": "width of a head", "F": "hidden neurons", "V": "vocabulary or classes", "E": "experts",
}  # fmt: skip


@dataclass
class ActivationRow:
    """What passed one tap."""

    name: str
    axes: str  # a letter for each axis, "BHTS"; ? where it is not known
    shape: tuple[int, ...]
    dtype: str
    least: float
    mean: float
    most: float
    std: float
    counts: np.ndarray  # histogram
    edges: np.ndarray

    @property
    def sizes(self) -> str:
        """Symbolic and numeric shape: "BHTS 1,4,9,9"."""
        return f"{self.axes} {','.join(map(str, self.shape))}"


@dataclass
class ActivationsView(View):
    """The tensors of one pass, in the order of the modules."""

    tensors: list[ActivationRow]
    not_passed: list[str]  # taps that nothing passes in this pass
    overview: np.ndarray | None = None  # of a single one: as a matrix, in at most 64 x 32 cells
    cell: tuple[int, int] | None = None  # rows and columns of the matrix in one cell

    def figures(self) -> list[Figure]:
        used = {letter for row in self.tensors for letter in row.axes}
        letters = ", ".join(f"{letter} {name}" for letter, name in LETTERS.items() if letter in used)
        kinds = ", ".join(dict.fromkeys(row.dtype for row in self.tensors))
        text = f"{plural(len(self.tensors), 'tensor')} of {kinds}. Axes: {letters}."
        if self.not_passed:
            text += f" Nothing passes {', '.join(self.not_passed)}."
        columns = [Column("tensor"), Column("axes"), *(Column(name, "number", 2) for name in ("min", "mean", "max"))]
        rows = [[r.name, r.sizes, r.least, r.mean, r.most, sparkline(r.counts)] for r in self.tensors]
        links = [[f"?pattern={quote(row.name)}"] for row in self.tensors]
        figures: list[Figure] = [Note(text), Table("Activations", [*columns, Column("histogram")], rows, links=links)]
        if self.overview is None or self.cell is None:
            return figures
        row, (down, across) = self.tensors[0], self.cell
        cells = "every number" if down == across == 1 else f"each cell the mean of {down} x {across} numbers"
        rows_are = " x ".join(row.axes[1:-1]) or "one row"
        title = f"{row.name}: down {rows_are}, across {row.axes[-1]}; {cells}"
        return [*figures, matrix_map(title, self.overview, down, across, 2), histogram(row.counts, row.edges)]


@view('glassformer look activations runs/demo-1 "To be" "blocks.0.*"')
def activations(
    model: Any,
    tokenizer: Tokenizer | None,
    text: TextOrImage,
    pattern: Annotated[str, Option("A name, or a pattern such as 'blocks.0.attention.*'.")] = "*",
    *,
    target: Target = None,
    source_tokenizer: Tokenizer | None = None,
) -> ActivationsView:
    """Every tensor that passes a tap while the model reads a text: shape, statistics and histogram.

    Raises:
        UsageError: no tap has such a name.
    """
    reading = read(model, tokenizer, text, target=target, source_tokenizer=source_tokenizer)
    wanted = fnmatch.filter(tap_names(model), pattern)
    if not wanted:
        raise UsageError(f"no tap is called {pattern!r}; {did_you_mean(pattern, tap_names(model))}")
    with trace(model, *wanted) as seen:
        reading.run()
    passed = set(seen)
    rows = [_row(name, seen[name]) for name in wanted if name in passed]
    if not rows:
        raise UsageError(f"nothing passes {', '.join(wanted)} while this text is read; take another pattern")
    found = ActivationsView(rows, [name for name in wanted if name not in passed])
    if len(rows) == 1:
        x = seen[rows[0].name].float().cpu()
        matrix = x.reshape(-1, x.shape[-1]) if x.dim() > 1 else x.reshape(1, -1)
        found.overview, found.cell = averaged(matrix.masked_fill(~matrix.isfinite(), 0.0))
    return found


def _row(name: str, x: Tensor) -> ActivationRow:
    numbers = x.detach().float().reshape(-1).cpu()
    numbers = numbers[numbers.isfinite()] if numbers.isfinite().any() else torch.zeros(1)
    low, high = (float(end) for end in numbers.aminmax())
    span = (low, high) if high > low else (low - 0.5, high + 0.5)
    return ActivationRow(
        name=name,
        axes=axes_of(name, x.dim()),
        shape=tuple(x.shape),
        dtype=str(x.dtype).partition(".")[2],
        least=low,
        mean=float(numbers.double().mean()),
        most=high,
        std=float(numbers.double().std(correction=0)),
        counts=torch.histc(numbers, BINS, *span).long().numpy(),
        edges=np.linspace(*span, BINS + 1),
    )
