"""Figures by matplotlib: one column of axes, a figure each. `import matplotlib` means the library, here too."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib.figure
import numpy as np

from glassformer.figures.colors import ROLES, TOKEN_STRENGTH, line_color, negative_of, role_color
from glassformer.figures.primitives import Column, Curves, Figure, HeatMap, Note, Points, Table, Tokens
from glassformer.figures.text import visible

WIDTH = 8.0  # inches
MOST_ROWS = 40  # of a table
LETTERS = 96  # characters of a line, as wide as they are at size 9


class Canvas(matplotlib.figure.Figure):
    """A figure made without pyplot: nothing is left open, no window appears, and notebooks show it."""

    def _repr_png_(self) -> bytes:
        held = io.BytesIO()
        self.savefig(held, format="png")
        return held.getvalue()


def to_matplotlib(figures: Sequence[Figure]) -> Any:
    """All of them in one `matplotlib.figure.Figure`."""
    heights = [_height(figure) for figure in figures]
    canvas = Canvas(figsize=(WIDTH, sum(heights)), layout="constrained")
    grid = canvas.add_gridspec(len(figures), 1, height_ratios=heights)
    for i, figure in enumerate(figures):
        space = isinstance(figure, Points) and np.asarray(figure.places).shape[1] > 2
        axes = canvas.add_subplot(grid[i], projection="3d" if space else None)
        if figure.title:
            axes.set_title(figure.title, loc="left", fontsize=10)
        DRAWERS[type(figure)](axes, figure)
    return canvas


def _height(figure: Figure) -> float:
    if isinstance(figure, Note):
        return 0.3 + 0.2 * (len(figure.text) // 100 + figure.text.count("\n"))
    if isinstance(figure, Table):
        return 0.7 + 0.24 * min(len(figure.rows) + len(figure.footer), MOST_ROWS)
    if isinstance(figure, HeatMap):
        return 1.5 + 0.22 * min(figure.values.shape[0], 40)
    if isinstance(figure, Tokens):
        lines = sum(map(len, figure.texts)) // 90 + sum(t.count("\\n") for t in figure.texts)
        return 0.8 + 0.25 * lines + (0.8 if figure.unit else 0.0)
    return 5.0 if isinstance(figure, Points) else 3.0


def _note(axes: Any, figure: Note) -> None:
    axes.axis("off")
    axes.text(0, 0.5, figure.text, wrap=True, fontsize=9, va="center")


def _table(axes: Any, figure: Table) -> None:
    """Bars of the first column that has some; the other columns are the labels beside them."""
    cells = figure.cells()[:MOST_ROWS]
    at = next((i for i, column in enumerate(figure.columns) if column.has_bar), None)
    if at is None:
        axes.axis("off")
        if cells:
            texts = [[_safe(cell.text) for cell in row] for row in cells]
            heads = [column.name for column in figure.columns]
            table = axes.table(cellText=texts, colLabels=heads, loc="upper left", edges="open")
            table.auto_set_font_size(False)
            table.set_fontsize(8)
            table.auto_set_column_width(list(range(len(figure.columns))))
        return
    column: Column = figure.columns[at]
    values = [row[at].value or 0.0 for row in cells]
    axes.barh(range(len(cells)), values, color=[_unit(role_color(column.role, v)) for v in values])
    labels = ["  ".join(cell.text for i, cell in enumerate(row) if i != at) for row in cells]
    axes.set_yticks(range(len(cells)), [_safe(label) for label in labels], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(column.name, fontsize=8)


def _heat_map(axes: Any, figure: HeatMap) -> None:
    from matplotlib.colors import LinearSegmentedColormap, LogNorm, Normalize

    full = _unit(ROLES[figure.role])
    colors = [_unit(negative_of(figure.role)), (1, 1, 1), full] if figure.signed else [(1, 1, 1), full]
    positive = np.ma.masked_where(~(figure.values > 0), figure.values) if figure.log else figure.values
    norm = (LogNorm if figure.log else Normalize)(figure.lowest, figure.scale)
    color_map = LinearSegmentedColormap.from_list(figure.role, colors)
    image = axes.imshow(positive, cmap=color_map, norm=norm, aspect="auto")
    for labels, set_ticks, angle in ((figure.columns, axes.set_xticks, 90), (figure.rows, axes.set_yticks, 0)):
        set_ticks(range(len(labels)), [_safe(visible(label, 12)) for label in labels], rotation=angle, fontsize=7)
    axes.set_xlabel(figure.column_axis, fontsize=8)
    axes.set_ylabel(figure.row_axis, fontsize=8)
    axes.figure.colorbar(image, ax=axes)


def _tokens(axes: Any, figure: Tokens) -> None:
    from matplotlib.patches import Rectangle

    axes.axis("off")
    x, y, color = 0, 0, _unit(ROLES[figure.role])
    for token, value in zip(figure.texts, figure.values, strict=True):
        strength = 0.0 if value is None else TOKEN_STRENGTH * min(value / figure.scale, 1.0)
        for i, part in enumerate(token.split("\\n")):
            if i or x + len(part) > LETTERS:
                x, y = 0, y - 1
            axes.add_patch(Rectangle((x, y - 0.3), len(part), 0.9, color=(*color, strength), linewidth=0))
            axes.text(x, y, _safe(part), family="monospace", fontsize=9)
            x += len(part)
    axes.set_xlim(0, LETTERS)
    axes.set_ylim(y - 1, 1)
    if figure.unit:
        _legend_of_tokens(axes, figure)


def _legend_of_tokens(axes: Any, figure: Tokens) -> None:
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LinearSegmentedColormap, Normalize

    color = _unit(ROLES[figure.role])
    strongest = tuple(1 - TOKEN_STRENGTH * (1 - part) for part in color)
    color_map = LinearSegmentedColormap.from_list(figure.role, [(1, 1, 1), strongest])
    axes.figure.colorbar(
        ScalarMappable(Normalize(0, figure.scale), color_map), ax=axes, label=figure.unit, location="bottom", shrink=0.3
    )


def _curves(axes: Any, figure: Curves) -> None:
    for i, line in enumerate(figure.lines):
        color = _unit(line_color(i if line.color is None else line.color))
        look = {"color": color, "alpha": 0.35 if line.faint else 1.0, "linewidth": 0.8 if line.faint else 1.5}
        marker = "." if line.dots or len(line.x) <= 50 else None
        axes.plot(line.x, line.y, label=_safe(line.name), marker=marker, **look)
        if line.low is not None and line.high is not None:
            axes.fill_between(line.x, line.low, line.high, color=color, alpha=0.18, linewidth=0)
    for name, y in figure.levels:
        axes.axhline(y, color="grey", linestyle="--", linewidth=0.8, label=_safe(name))
    for _, x in figure.events:
        axes.axvline(x, color="purple", linestyle=":", linewidth=0.8)
    axes.set_xscale("log" if figure.x_log else "linear")
    axes.set_yscale("log" if figure.y_log else "linear")
    if figure.y_max is not None:
        axes.set_ylim(top=figure.y_max)
    if figure.x_labels:
        step = max(1, len(figure.x_labels) // 12)
        labels = [_safe(label) for label in figure.x_labels[::step]]
        axes.set_xticks(range(0, len(figure.x_labels), step), labels, fontsize=8)
    axes.set_xlabel(figure.x_axis, fontsize=8)
    axes.set_ylabel(figure.y_axis, fontsize=8)
    if len(figure.lines) + len(figure.levels) > 1:
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


def _unit(color: tuple[int, int, int]) -> tuple[float, float, float]:
    return color[0] / 255, color[1] / 255, color[2] / 255


DRAWERS: dict[type, Any] = {
    Note: _note,
    Table: _table,
    HeatMap: _heat_map,
    Tokens: _tokens,
    Curves: _curves,
    Points: _points,
}
