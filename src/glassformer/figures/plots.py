"""Figures by matplotlib: one column of axes, a figure each. It is imported by whoever plots, and by nobody else."""

from __future__ import annotations

import io
from typing import Any

import matplotlib.figure
import numpy as np

from glassformer.figures.primitives import (
    ROLES,
    TOKEN_STRENGTH,
    Column,
    Curves,
    Figure,
    HeatMap,
    Note,
    Points,
    Table,
    Tokens,
    negative_of,
    said,
    visible,
)

WIDTH = 8.0  # inches
MOST_ROWS = 40  # of a table
LINE = 96  # characters of a text, as wide as they are at size 9


class Canvas(matplotlib.figure.Figure):
    """A figure made without pyplot, so that nothing is left open and no window is asked for; notebooks show it."""

    def _repr_png_(self) -> bytes:
        held = io.BytesIO()
        self.savefig(held, format="png")
        return held.getvalue()


def plot(figures: list[Figure]) -> Any:
    """All of them in one `matplotlib.figure.Figure`."""
    heights = [_height(figure) for figure in figures]
    canvas = Canvas(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = canvas.add_gridspec(len(figures), 1, height_ratios=heights)
    for i, figure in enumerate(figures):
        space = isinstance(figure, Points) and np.asarray(figure.places).shape[1] > 2
        axes = canvas.add_subplot(grid[i], projection="3d" if space else None)
        if not isinstance(figure, Note):
            axes.set_title(figure.title, loc="left", fontsize=10)
        DRAWERS[type(figure)](axes, figure)
    return canvas


def _height(figure: Figure) -> float:
    if isinstance(figure, Note):
        return 0.3 + 0.2 * (len(figure.text) // 100)
    if isinstance(figure, Table):
        return 0.7 + 0.24 * min(len(figure.rows), MOST_ROWS)
    if isinstance(figure, HeatMap):
        return 1.5 + 0.22 * min(len(figure.rows), 40)
    if isinstance(figure, Tokens):
        lines = sum(map(len, figure.texts)) // 90 + sum(t.count("\\n") for t in figure.texts)
        return 0.8 + 0.25 * lines + (0.8 if figure.unit else 0.0)
    return 5.0 if isinstance(figure, Points) else 3.0


def _note(axes: Any, figure: Note) -> None:
    axes.axis("off")
    axes.text(0, 0.5, figure.text, wrap=True, fontsize=9, va="center")


def _table(axes: Any, figure: Table) -> None:
    """Bars of the first share or signed column; the other columns are the labels and stand beside them."""
    rows = list(figure.rows)[:MOST_ROWS]
    at = next((i for i, column in enumerate(figure.columns) if column.kind in ("share", "signed")), None)
    if at is None:
        axes.axis("off")
        cells = [[said(v, c) for v, c in zip(row, figure.columns, strict=True)] for row in rows]
        if cells:
            table = axes.table(
                cellText=cells, colLabels=[c.name for c in figure.columns], loc="upper left", edges="open"
            )
            table.auto_set_font_size(False)
            table.set_fontsize(8)
            table.auto_set_column_width(list(range(len(figure.columns))))
        return
    column: Column = figure.columns[at]
    values = [float(row[at] or 0) for row in rows]
    colours = [_unit(negative_of(column.role) if v < 0 else ROLES[column.role]) for v in values]
    axes.barh(range(len(rows)), values, color=colours)
    others = [i for i in range(len(figure.columns)) if i != at]
    labels = ["  ".join(said(row[i], figure.columns[i]) for i in others) for row in rows]
    axes.set_yticks(range(len(rows)), [_safe(label) for label in labels], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(column.name, fontsize=8)


def _heat_map(axes: Any, figure: HeatMap) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    full = _unit(ROLES[figure.role])
    colours = [_unit(negative_of(figure.role)), (1, 1, 1), full] if figure.signed else [(1, 1, 1), full]
    low = -figure.scale if figure.signed else 0.0
    map_of = LinearSegmentedColormap.from_list(figure.role, colours)
    image = axes.imshow(figure.values, cmap=map_of, vmin=low, vmax=figure.scale, aspect="auto")
    axes.set_xticks(
        range(len(figure.columns)), [_safe(visible(c, 12)) for c in figure.columns], rotation=90, fontsize=7
    )
    axes.set_yticks(range(len(figure.rows)), [_safe(visible(r, 12)) for r in figure.rows], fontsize=7)
    axes.set_xlabel(figure.column_axis, fontsize=8)
    axes.set_ylabel(figure.row_axis, fontsize=8)
    axes.figure.colorbar(image, ax=axes)


def _tokens(axes: Any, figure: Tokens) -> None:
    from matplotlib.patches import Rectangle

    axes.axis("off")
    x, y, colour = 0, 0, _unit(ROLES[figure.role])
    for token, value in zip(figure.texts, figure.values, strict=True):
        strength = 0.0 if value is None else TOKEN_STRENGTH * min(value / figure.scale, 1.0)
        for i, part in enumerate(token.split("\\n")):
            if i or x + len(part) > LINE:
                x, y = 0, y - 1
            axes.add_patch(Rectangle((x, y - 0.3), len(part), 0.9, color=(*colour, strength), linewidth=0))
            axes.text(x, y, _safe(part), family="monospace", fontsize=9)
            x += len(part)
    axes.set_xlim(0, LINE)
    axes.set_ylim(y - 1, 1)
    if figure.unit:
        _scale_of_tokens(axes, figure)


def _scale_of_tokens(axes: Any, figure: Tokens) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    colour = _unit(ROLES[figure.role])
    strongest = tuple(1 - TOKEN_STRENGTH * (1 - part) for part in colour)
    map_of = LinearSegmentedColormap.from_list(figure.role, [(1, 1, 1), strongest])
    axes.figure.colorbar(
        ScalarMappable(Normalize(0, figure.scale), map_of), ax=axes, label=figure.unit, location="bottom", shrink=0.3
    )


def _curves(axes: Any, figure: Curves) -> None:
    for name, line in figure.lines.items():
        axes.plot(range(len(figure.x)), line, label=_safe(name), marker=".")
    step = max(1, len(figure.x) // 12)
    axes.set_xticks(range(0, len(figure.x), step), [_safe(str(x)) for x in figure.x[::step]], fontsize=8)
    axes.set_xlabel(figure.x_axis, fontsize=8)
    axes.set_ylabel(figure.y_axis, fontsize=8)
    if len(figure.lines) > 1:
        axes.legend(fontsize=7)


def _points(axes: Any, figure: Points) -> None:
    places = np.asarray(figure.places, dtype=float)
    axes.scatter(*places.T)
    for label, place in zip(figure.labels, places, strict=True):
        axes.text(*place, " " + _safe(label), fontsize=8)
    for name, set_label in zip(
        figure.axes, (axes.set_xlabel, axes.set_ylabel, getattr(axes, "set_zlabel", None)), strict=False
    ):
        set_label(name, fontsize=8)


def _safe(label: str) -> str:
    """A dollar begins a formula."""
    return label.replace("$", r"\$")


def _unit(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    return colour[0] / 255, colour[1] / 255, colour[2] / 255


DRAWERS: dict[type, Any] = {
    Note: _note,
    Table: _table,
    HeatMap: _heat_map,
    Tokens: _tokens,
    Curves: _curves,
    Points: _points,
}
