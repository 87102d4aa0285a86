"""Figures as a file, whose name decides the form."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures.primitives import Curves, Figure, HeatMap, Note, Table, Tokens
from glassformer.files import write_text


def save(figures: Sequence[Figure], path: str | os.PathLike[str], title: str = "") -> None:
    """Write figures to a file, atomically: `.html`, `.svg` (no tables or texts), `.csv` (see `to_csv`) or `.json`.

    Raises:
        UsageError: the name ends otherwise, or SVG cannot hold the figures.
        GlassformerError: the file cannot be written.
    """
    path = Path(path)
    if path.suffix.lower() == ".html":
        from glassformer.figures.html import to_html

        text = to_html(figures, title)
    elif path.suffix.lower() == ".svg":
        from glassformer.figures.svg import to_svg

        text = to_svg(figures, title)
    elif path.suffix.lower() == ".csv":
        text = to_csv(figures)
    elif path.suffix.lower() == ".json":
        from glassformer.figures.json import to_json

        text = json.dumps(to_json(figures), allow_nan=False)
    else:
        raise UsageError(f"{path}: figures are written as .svg, .html, .csv or .json; name it {path.stem}.svg")
    write_text(path, text)


def to_csv(figures: Sequence[Figure]) -> str:
    """Every number and text of the figures in full precision, one a line: figure (its number, from 0), title, row,
    column, value. NaN is left empty.

    Of curves the row is the line's name and the column its x, of points the label and the axis, of tokens the place and
    the token.
    """
    held = io.StringIO()
    writer = csv.writer(held, lineterminator="\n")
    writer.writerow(("figure", "title", "row", "column", "value"))
    for i, figure in enumerate(figures):
        for row, column, value in _cells(figure):
            missing = value is None or (isinstance(value, float) and value != value)
            writer.writerow((i, figure.title, row, column, "" if missing else value))
    return held.getvalue()


def _cells(figure: Figure) -> Iterator[tuple[Any, Any, Any]]:
    """(row, column, value)"""
    if isinstance(figure, Note):
        yield "", "", figure.text
    elif isinstance(figure, Table):
        for r, row in enumerate((*figure.rows, *figure.footer)):
            yield from ((r, column.name, _plain(value)) for column, value in zip(figure.columns, row, strict=True))
    elif isinstance(figure, Curves):
        for line in figure.lines:
            parts = ((line.name, line.y), (f"{line.name}, low", line.low), (f"{line.name}, high", line.high))
            for name, values in parts:
                places = () if values is None else zip(line.x, values, strict=False)
                named = figure.x_labels
                yield from ((name, named[int(x)] if named else _plain(x), _plain(y)) for x, y in places)
    elif isinstance(figure, Tokens):
        yield from ((i, text, value) for i, (text, value) in enumerate(zip(figure.texts, figure.values, strict=True)))
    else:
        table = np.asarray(figure.values if isinstance(figure, HeatMap) else figure.places, dtype=float)
        rows = figure.rows if isinstance(figure, HeatMap) else figure.labels
        columns = list(figure.columns if isinstance(figure, HeatMap) else figure.axes)
        columns += [f"axis {c + 1}" for c in range(len(columns), table.shape[1])]
        yield from ((rows[r], columns[c], float(value)) for (r, c), value in np.ndenumerate(table))


def _plain(value: Any) -> Any:
    """A Python number of NumPy's or torch's."""
    return value.item() if hasattr(value, "item") else value
