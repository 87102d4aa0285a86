"""Figures as plain data, which a web page draws: their own fields, and the texts and colours made of them.

{"kind": "heat_map", "title": ..., "values": [[...]], "rows": [...], "columns": [...], "color": [r, g, b], ...}

NaN and infinities are None. What is larger than a page can hold is cut, and `omitted` is how much of it; a long line
keeps what can be seen of it (`axes.thin`).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from dataclasses import asdict, fields, is_dataclass
from typing import Any

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures.axes import Scale, finite, limits, thin
from glassformer.figures.colors import TOKEN_STRENGTH, line_color, negative_of, role_color
from glassformer.figures.primitives import Cell, Column, Curves, Figure, HeatMap, Line, Note, Points, Table, Tokens

MOST_ROWS = 2000  # of a table
MOST_CELLS = 512  # of a heat map, along a side
MOST_LINES = 64
MOST_COLUMNS = 500  # of pixels, each with up to four points of a line
MOST_POINTS = 200_000
MANY_POINTS = 2000  # whose places are the bytes of a safetensors file, in base64
MOST_TOKENS = 20_000


def to_json(figures: Sequence[Figure]) -> list[dict[str, Any]]:
    """A dictionary for each figure, which `json.dumps(allow_nan=False)` takes."""
    return [_figure(figure) for figure in figures]


def from_json(data: Sequence[dict[str, Any]]) -> list[Figure]:
    """The figures that `to_json` wrote; lines have the colours of their places.

    Raises:
        UsageError: it is something else.
    """
    try:
        return [_read(each) for each in data]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UsageError(f"this is no list of figures as to_json writes them ({error!r})") from None


def _read(data: dict[str, Any]) -> Figure:
    kind = {_kind(cls): cls for cls in WRITERS}[data["kind"]]
    own = {field.name: data[field.name] for field in fields(kind) if field.name in data}
    if kind is Table:
        columns = [Column(c["name"], c["kind"], c["digits"], c["role"]) for c in own["columns"]]

        def row(cells: list[dict[str, Any]]) -> list[Any]:
            pairs = zip(cells, columns, strict=True)
            return [cell.get("value") if column.is_number else cell["text"] for cell, column in pairs]

        own |= {"columns": columns, "rows": [row(r) for r in own["rows"]], "footer": [row(r) for r in own["footer"]]}
        own["marked"] = frozenset(own["marked"])
    elif kind is Curves:
        own["lines"] = [_read_line(line) for line in own["lines"]]
        own["levels"] = [(level["name"], level["y"]) for level in own["levels"]]
        own["events"] = [(event["name"], event["x"]) for event in own["events"]]
    if data.get("safetensors"):
        from safetensors.numpy import load

        own["places"] = load(base64.b64decode(data["safetensors"]))["places"]
    for name in ("values", "places"):
        if name in own and kind is not Tokens:
            own[name] = np.array(own[name], dtype=float)
    return kind(**own)  # type: ignore[no-any-return]


def _read_line(data: dict[str, Any]) -> Line:
    arrays: dict[str, Any] = {
        name: np.array(data[name], dtype=float) for name in ("x", "y", "low", "high") if name in data
    }
    return Line(data["name"], **arrays, faint=data["faint"], dots=data["dots"])


def _kind(cls: type) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


def _figure(figure: Figure) -> dict[str, Any]:
    own = {field.name: getattr(figure, field.name) for field in fields(figure)}
    added, omitted = WRITERS[type(figure)](figure)
    data = {**own, **added, "kind": _kind(type(figure))}
    left_out = {name: n for name, n in omitted.items() if n > 0}
    return {key: plain(value) for key, value in data.items()} | ({"omitted": left_out} if left_out else {})


def plain(value: Any) -> Any:
    """A value as JSON has it: tensors and arrays are lists, dataclasses dictionaries; NaN and infinities are None.

    >>> plain((np.array([1.0, np.nan]), frozenset({2}), {3: np.float32(0.5)}))
    [[1.0, None], [2], {'3': 0.5}]
    """
    if hasattr(value, "detach"):  # a tensor
        value = (value.float() if value.is_floating_point() else value).detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype.kind == "f":
        numbers = value.astype(object)
        numbers[~np.isfinite(value)] = None
        return numbers.tolist()
    if isinstance(value, (np.ndarray, np.generic)):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    if is_dataclass(value):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    return [plain(inner) for inner in value] if isinstance(value, (list, tuple, set, frozenset)) else value


Parts = tuple[dict[str, Any], dict[str, int]]  # what is added to a figure's own fields, and how much is left out


def _note(figure: Note) -> Parts:
    return {}, {}


def _table(figure: Table) -> Parts:
    cells, n = figure.cells(), len(figure.rows)
    keep = min(n, MOST_ROWS)

    def column(c: Column) -> dict[str, Any]:
        return {**asdict(c), "color": role_color(c.role, 1), "negative_color": negative_of(c.role)}

    def cell(c: Cell) -> dict[str, Any]:
        return {key: value for key, value in c._asdict().items() if plain(value) is not None}

    return {
        "columns": [column(c) for c in figure.columns],
        "rows": [[cell(c) for c in row] for row in cells[:keep]],
        "footer": [[cell(c) for c in row] for row in cells[n:]],
        "marked": sorted(row for row in figure.marked if row < keep),
    }, {"rows": n - keep}


def _heat_map(figure: HeatMap) -> Parts:
    (R, C), part = figure.values.shape, slice(MOST_CELLS)
    return {
        "values": np.asarray(figure.values, dtype=float)[part, part],
        "shares": np.round(figure.shares()[part, part], 4),  # of the full colour; negative: of the other one
        "rows": list(figure.rows)[part],
        "columns": list(figure.columns)[part],
        "color": role_color(figure.role, 1),
        "negative_color": negative_of(figure.role),
        "lowest": figure.lowest,
        "highest": figure.scale,
    }, {"rows": R - MOST_CELLS, "columns": C - MOST_CELLS}


def _curves(figure: Curves) -> Parts:
    edges = limits(figure) or (0.0, 1.0, 0.0, 1.0)
    across = Scale(*edges[:2], 0, 1, figure.x_log)

    def line(i: int, line: Line) -> dict[str, Any]:
        x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
        keep = np.arange(len(x))  # gaps too
        if len(x) > 4 * MOST_COLUMNS and len(drawn := finite(line, figure)):
            keep = drawn[thin(across(x[drawn]), y[drawn], MOST_COLUMNS, 0, 1)]
        parts = {name: getattr(line, name) for name in ("x", "y", "low", "high") if getattr(line, name) is not None}
        color = i if line.color is None else line.color
        return {
            "name": line.name,
            **{name: _short_numbers(np.asarray(values, dtype=float)[keep]) for name, values in parts.items()},
            "faint": line.faint,
            "dots": line.dots,
            "color": line_color(color),
            "dark_color": line_color(color, dark=True),
        }

    return {
        "lines": [line(i, each) for i, each in enumerate(figure.lines[:MOST_LINES])],
        "limits": edges,
        "levels": [{"name": name, "y": float(y)} for name, y in figure.levels],
        "events": [{"name": name, "x": float(x)} for name, x in figure.events],
    }, {"lines": len(figure.lines) - MOST_LINES}


def _short_numbers(values: np.ndarray) -> list[Any]:
    """Whole numbers without a point and, of a long line, no more digits than can be seen."""
    numbers = plain(values)
    if len(numbers) > MOST_COLUMNS:
        numbers = [None if v is None else float(f"{v:.6g}") for v in numbers]
    return [int(v) if v is not None and v.is_integer() else v for v in numbers]


def _points(figure: Points) -> Parts:
    part = slice(MOST_POINTS)
    places = np.asarray(figure.places, dtype=float)[part]
    added: dict[str, Any] = {"labels": list(figure.labels)[part], "places": places}
    if len(places) > MANY_POINTS:
        from safetensors.numpy import save

        whole = save({"places": places.astype(np.float32)})
        added |= {"places": [], "safetensors": base64.b64encode(whole).decode()}
    return added, {"points": len(figure.labels) - MOST_POINTS}


def _tokens(figure: Tokens) -> Parts:
    part = slice(MOST_TOKENS)
    return {
        "texts": list(figure.texts)[part],
        "values": list(figure.values)[part],
        "highest": figure.scale,
        "color": role_color(figure.role, 1),
        "strength": TOKEN_STRENGTH,
    }, {"tokens": len(figure.texts) - MOST_TOKENS}


WRITERS: dict[type, Any] = {
    Note: _note,
    Table: _table,
    HeatMap: _heat_map,
    Curves: _curves,
    Points: _points,
    Tokens: _tokens,
}
