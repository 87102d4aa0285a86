"""Figures as plain data, which a web page draws: numbers as they are, beside the texts and colours made of them.

{"kind": "heat_map", "title": ..., "values": [[...]], "rows": [...], "columns": [...], "color": [r, g, b], ...}

NaN and infinities are None. What is larger than a page can hold is cut, and `omitted` says how much of it; a long line
keeps what can be seen of it (`axes.thin`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from glassformer.figures.axes import Scale, finite, limits, thin
from glassformer.figures.colors import TOKEN_STRENGTH, line_color, negative_of, role_color
from glassformer.figures.primitives import Curves, Figure, HeatMap, Note, Points, Table, Tokens

MOST_ROWS = 2000  # of a table
MOST_CELLS = 512  # of a heat map, along a side
MOST_LINES = 64
MOST_COLUMNS = 500  # of pixels, each with up to four points of a line
MOST_POINTS = 5000
MOST_TOKENS = 20_000


def to_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """A dictionary for each figure, which `json.dumps(allow_nan=False)` takes."""
    return [WRITERS[type(figure)](figure) for figure in figures]


def plain_numbers(values: Any) -> list[Any]:
    """An array of any shape as lists; what is no finite number is None.

    >>> plain_numbers([[1.0, float("nan")]])
    [[1.0, None]]
    """
    array = np.asarray(values, dtype=float)
    numbers = array.astype(object)
    numbers[~np.isfinite(array)] = None
    return numbers.tolist()  # type: ignore[no-any-return]


def _cut(omitted: dict[str, int]) -> dict[str, Any]:
    left_out = {name: n for name, n in omitted.items() if n > 0}
    return {"omitted": left_out} if left_out else {}


def _note(figure: Note) -> dict[str, Any]:
    return {"kind": "note", **asdict(figure)}


def _table(figure: Table) -> dict[str, Any]:
    cells = figure.cells()
    n, keep = len(figure.rows), min(len(figure.rows), MOST_ROWS)

    def rows(part: list[Any]) -> list[Any]:
        return [[{"text": c.text, **_known("value", c.value), **_known("bar", c.bar)} for c in row] for row in part]

    return {
        "kind": "table",
        "title": figure.title,
        "columns": [
            {**asdict(c), "color": role_color(c.role, 1), "negative_color": negative_of(c.role)} for c in figure.columns
        ],
        "rows": rows(cells[:keep]),
        "footer": rows(cells[n:]),
        "marked": sorted(row for row in figure.marked if row < keep),
        **_cut({"rows": n - keep}),
    }


def _known(key: str, value: float | None) -> dict[str, float]:
    return {key: value} if value is not None and np.isfinite(value) else {}


def _heat_map(figure: HeatMap) -> dict[str, Any]:
    R, C = figure.values.shape
    part = slice(MOST_CELLS), slice(MOST_CELLS)
    return {
        "kind": "heat_map",
        "title": figure.title,
        "values": plain_numbers(figure.values[part]),
        "shares": plain_numbers(np.round(figure.shares()[part], 4)),  # of the full colour; negative: the other one
        "rows": list(figure.rows)[:MOST_CELLS],
        "columns": list(figure.columns)[:MOST_CELLS],
        "row_axis": figure.row_axis,
        "column_axis": figure.column_axis,
        "role": figure.role,
        "color": role_color(figure.role, 1),
        "negative_color": negative_of(figure.role),
        "signed": figure.signed,
        "log": figure.log,
        "lowest": figure.lowest,
        "highest": figure.scale,
        "digits": figure.digits,
        "compact": figure.compact,
        **_cut({"rows": R - MOST_CELLS, "columns": C - MOST_CELLS}),
    }


def _curves(figure: Curves) -> dict[str, Any]:
    edges = limits(figure) or (0.0, 1.0, 0.0, 1.0)
    across = Scale(*edges[:2], 0, 1, figure.x_log)
    lines = []
    for i, line in enumerate(figure.lines[:MOST_LINES]):
        keep = drawn = finite(line, figure)
        x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
        if len(line.x) <= 4 * MOST_COLUMNS:
            keep = np.arange(len(line.x))  # gaps too
        elif len(drawn):
            keep = drawn[thin(across(x[drawn]), y[drawn], MOST_COLUMNS, 0, 1)]
        band = {name: getattr(line, name) for name in ("low", "high") if getattr(line, name) is not None}
        color = i if line.color is None else line.color
        lines.append(
            {
                "name": line.name,
                "x": _short_numbers(x[keep]),
                "y": _short_numbers(y[keep]),
                **{name: _short_numbers(np.asarray(edge, dtype=float)[keep]) for name, edge in band.items()},
                "faint": line.faint,
                "dots": line.dots,
                "color": line_color(color),
                "dark_color": line_color(color, dark=True),
            }
        )
    return {
        "kind": "curves",
        "title": figure.title,
        "lines": lines,
        "x_axis": figure.x_axis,
        "y_axis": figure.y_axis,
        "x_labels": list(figure.x_labels),
        "x_log": figure.x_log,
        "y_log": figure.y_log,
        "compact": figure.compact,
        "limits": list(edges),
        "levels": [{"name": name, "y": float(y)} for name, y in figure.levels],
        "events": [{"name": name, "x": float(x)} for name, x in figure.events],
        **_cut({"lines": len(figure.lines) - MOST_LINES}),
    }


def _short_numbers(values: np.ndarray) -> list[Any]:
    """Whole numbers without a point and, of a long line, no more digits than can be seen."""
    numbers = plain_numbers(values)
    if len(numbers) > MOST_COLUMNS:
        numbers = [None if v is None else float(f"{v:.6g}") for v in numbers]
    return [int(v) if v is not None and v.is_integer() else v for v in numbers]


def _points(figure: Points) -> dict[str, Any]:
    n = len(figure.labels)
    return {
        "kind": "points",
        "title": figure.title,
        "labels": list(figure.labels)[:MOST_POINTS],
        "places": plain_numbers(np.asarray(figure.places)[:MOST_POINTS]),
        "axes": list(figure.axes),
        **_cut({"points": n - MOST_POINTS}),
    }


def _tokens(figure: Tokens) -> dict[str, Any]:
    n = len(figure.texts)
    values = list(figure.values)[:MOST_TOKENS]
    return {
        "kind": "tokens",
        "title": figure.title,
        "texts": list(figure.texts)[:MOST_TOKENS],
        "values": [float(v) if v is not None and np.isfinite(v) else None for v in values],
        "unit": figure.unit,
        "highest": float(figure.scale),
        "role": figure.role,
        "color": role_color(figure.role, 1),
        "strength": TOKEN_STRENGTH,
        "digits": figure.digits,
        **_cut({"tokens": n - MOST_TOKENS}),
    }


WRITERS: dict[type, Any] = {
    Note: _note,
    Table: _table,
    HeatMap: _heat_map,
    Curves: _curves,
    Points: _points,
    Tokens: _tokens,
}
