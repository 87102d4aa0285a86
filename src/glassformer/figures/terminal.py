"""Figures in a terminal, by rich: bars in eighths of a character, heat maps of half blocks, grids of numbers.

Everything fits into 80 columns, and says without colours what it says with them: where there are none (NO_COLOR, a
file), shades are letters of different darkness and numbers stand beside tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from glassformer.figures.primitives import (
    ROLES,
    STRONG,
    Column,
    Curves,
    Figure,
    HeatMap,
    Note,
    Points,
    Table,
    Tokens,
    bar,
    negative_of,
    number,
    said,
    shade,
    visible,
)

GROUND = 24  # how light the middle of a scale is: terminals are dark more often than not
LABEL = 12  # characters of a row's label
SHADES = " ·░▒▓█"
STEPS = "▁▂▃▄▅▆▇█"
BAR = 20  # characters of the longest bar
COLUMN_LABEL = 8  # letters of a label that is read downwards


def drawn(figures: list[Figure], console: Console, options: ConsoleOptions) -> Iterator[Any]:
    """Each figure in turn, an empty line between two."""
    colours = not console.no_color and console.color_system is not None
    width = options.max_width
    for i, figure in enumerate(figures):
        if i:
            yield Text()
        if not isinstance(figure, Note) and figure.title:
            yield Text(figure.title, style="bold")
        yield from DRAWERS[type(figure)](figure, width, colours)


def _note(figure: Note, width: int, colours: bool) -> Iterator[Any]:
    yield Text(figure.text)


def _table(figure: Table, width: int, colours: bool) -> Iterator[Any]:
    if not figure.rows:
        return
    texts = [[said(value, column) for value, column in zip(row, figure.columns, strict=True)] for row in figure.rows]
    widths = [max([len(c.name), *(len(row[i]) for row in texts)]) for i, c in enumerate(figure.columns)]
    barred = sum(column.kind in ("share", "signed") for column in figure.columns)
    left = width - sum(widths) - 2 * (len(widths) + barred)
    length = max(4, min(BAR, left // max(barred, 1))) if left >= 4 * barred else 0  # no room: no bars
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    for i, column in enumerate(figure.columns):
        whole = column.kind != "text" or widths[i] <= width // 4
        grid.add_column(
            column.name,
            justify="right" if column.is_number else "left",
            no_wrap=whole,
            min_width=widths[i] if whole and left >= 0 else None,
        )
        if column.kind in ("share", "signed") and length:
            grid.add_column("", no_wrap=True, min_width=length)
    for r, (row, shown) in enumerate(zip(figure.rows, texts, strict=True)):
        cells = []
        for i, (text, column) in enumerate(zip(shown, figure.columns, strict=True)):
            cells.append(Text(text, overflow="ellipsis"))
            if column.kind in ("share", "signed") and length:
                cells.append(_bar(figure.bar(row, i), column, length))
        grid.add_row(*cells, style="bold" if r in figure.marked else None)
    yield grid


def _bar(share: float | None, column: Column, length: int) -> Text:
    if share is None:
        return Text()
    colour = _rgb(negative_of(column.role) if share < 0 else ROLES[column.role])
    if column.kind == "share":
        return Text(bar(share, length), style=colour)
    half = length // 2 - 1  # signed: from the middle, to the left or to the right
    filled = "█" * round(abs(share) * half)
    if share < 0:
        return Text(" " * (half - len(filled))) + Text(filled, style=colour) + Text("│", style="dim")
    return Text(" " * half) + Text("│", style="dim") + Text(filled, style=colour)


def _heat_map(figure: HeatMap, width: int, colours: bool) -> Iterator[Any]:
    axes = " ".join(
        f"{name}: {axis}" for name, axis in (("down", figure.row_axis), ("across", figure.column_axis)) if axis
    )
    if axes:
        yield Text(axes, style="dim")
    if not figure.values.size:
        return
    labels = [visible(label, LABEL) for label in figure.rows]
    left = max(map(len, labels), default=0)
    cell = max(4 + figure.digits + figure.signed, 1)
    if left + 1 + cell * len(figure.columns) <= width and len(figure.columns) <= 16:
        yield from _numbers(figure, labels, left, cell)
        if colours:
            yield _scale(figure)
        return
    # wider than the terminal: in pieces, each with its labels
    room = max(width - left - 2 - (LABEL + 1 if colours else 0), 8)
    for start in range(0, len(figure.columns), room):
        yield from _blocks(figure, labels, left, slice(start, start + room), colours)
    yield _scale(figure) if colours else _scale_of_letters(figure)


def _scale(figure: HeatMap) -> Text:
    """The legend: the numbers at the ends of the colours."""
    low = f"-{number(figure.scale)}" if figure.signed else "0"
    steps = [i / 8 for i in range(-8 if figure.signed else 0, 9, 2 if figure.signed else 1)]
    strip = Text(f"{low} ", style="dim")
    for share in steps:
        strip.append("  ", style=Style(bgcolor=_rgb(_colour(figure, share * figure.scale))))
    return strip + Text(f" {number(figure.scale)}", style="dim")


def _scale_of_letters(figure: HeatMap) -> Text:
    """The same without colours, once each letter."""
    shares = [i / 40 for i in range(-40 if figure.signed else 0, 41)]
    letters = "".join(dict.fromkeys(_letter(figure, share * figure.scale) for share in shares))
    low = f"-{number(figure.scale)}" if figure.signed else "0"
    return Text(f"{low} {letters} {number(figure.scale)}", style="dim")


def _numbers(figure: HeatMap, labels: list[str], left: int, cell: int) -> Iterator[Text]:
    """A grid of numbers, each on its colour."""
    head = Text(" " * (left + 1))
    for name in figure.columns:
        head.append(f"{visible(name, cell - 1):>{cell}}", style="dim")
    yield head
    for label, row in zip(labels, figure.values, strict=True):
        line = Text(f"{label:>{left}} ")
        for value in row:
            text = "" if np.isnan(value) else _short(float(value), figure.digits, cell)
            line.append(f"{text:>{cell}}", style=_on(figure, float(value)))
        yield line


def _blocks(figure: HeatMap, labels: list[str], left: int, part: slice, colours: bool) -> Iterator[Text]:
    """One character a column and, where there are colours, two rows a line (the lower one's label to the right)."""
    names = [visible(name, COLUMN_LABEL) for name in figure.columns[part]]
    for i in range(max(map(len, names), default=0)):
        yield Text(" " * (left + 1) + "".join(name[i] if i < len(name) else " " for name in names), style="dim")
    values = figure.values[:, part]
    if not colours:
        for label, row in zip(labels, values, strict=True):
            yield Text(f"{label:>{left}} " + "".join(_letter(figure, float(value)) for value in row))
        return
    for r in range(0, len(values), 2):
        line = Text(f"{labels[r]:>{left}} ")
        below = values[r + 1] if r + 1 < len(values) else None
        for c, value in enumerate(values[r]):
            lower = None if below is None else _rgb(_colour(figure, float(below[c])))
            line.append("▀", style=Style(color=_rgb(_colour(figure, float(value))), bgcolor=lower))
        line.append(f" {labels[r + 1]}" if below is not None else "")
        yield line


def _letter(figure: HeatMap, value: float) -> str:
    """A shade as a letter; negative numbers as a minus where they are strong."""
    if np.isnan(value):
        return " "
    share = min(abs(value) / figure.scale, 1.0)
    if value < 0 and figure.signed and share > 0.1:
        return "-" if share < 0.5 else "="
    return SHADES[round(share * (len(SHADES) - 1))]


def _colour(figure: HeatMap, value: float) -> tuple[int, int, int]:
    if np.isnan(value):
        return GROUND, GROUND, GROUND
    return shade(figure.role, abs(value) / figure.scale, negative=figure.signed and value < 0, ground=GROUND)


def _on(figure: HeatMap, value: float) -> Style:
    """Writing on the colour of a number."""
    if np.isnan(value):
        return Style()
    return Style(color="rgb(245,245,245)", bgcolor=_rgb(_colour(figure, value)))


def _short(value: float, digits: int, cell: int) -> str:
    """A number with as many digits as there is room for, or as a power of ten.

    >>> _short(71.24, 1, 5), _short(7123.4, 1, 5), _short(71234.5, 1, 5)
    ('71.2', '7123', '7e4')
    """
    for left in range(digits, -1, -1):
        if len(text := f"{value:.{left}f}") < cell:
            return text
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _tokens(figure: Tokens, width: int, colours: bool) -> Iterator[Any]:
    line = Text()
    for text, value in zip(figure.texts, figure.values, strict=True):
        shown = text.replace("\\n", "⏎\n")
        if value is None:
            line.append(shown, style="dim")
        elif colours:
            colour = shade(figure.role, value / figure.scale, ground=GROUND)
            line.append(shown, style=Style(color="rgb(245,245,245)", bgcolor=_rgb(colour)))
        else:
            head, newline, rest = shown.partition("\n")
            line.append(f"{head}({value:.{figure.digits}f}){newline}{rest}")
    yield line
    if colours and figure.unit:
        legend = Text("0 ", style="dim")
        for i in range(9):
            legend.append("  ", style=Style(bgcolor=_rgb(shade(figure.role, i / 8, ground=GROUND))))
        yield legend + Text(f" {number(figure.scale, figure.digits)} {figure.unit}", style="dim")


def surprise_style(probability: float) -> Style:
    """How a token is written that came with this probability: the more bits of surprise, the redder its ground."""
    bits = STRONG if probability <= 0 else -math.log2(probability)
    return Style(color="rgb(245,245,245)", bgcolor=_rgb(shade("value", bits / STRONG, ground=GROUND)))


def _curves(figure: Curves, width: int, colours: bool) -> Iterator[Any]:
    left = min(max(map(len, figure.lines), default=0), 24)
    if figure.x_axis or figure.y_axis:
        yield Text(f"{figure.y_axis} over {figure.x_axis}" if figure.x_axis else figure.y_axis, style="dim")
    seen = [v for line in figure.lines.values() for v in line if np.isfinite(v)]
    low, high = min(seen, default=0.0), max(seen, default=1.0)
    for name, line in figure.lines.items():
        text = Text(f"{name[:left]:<{left}} ")
        for value in _thinned(list(line), width - left - 24):
            step = (
                0 if high == low else round((value - low) / (high - low) * (len(STEPS) - 1)) if value == value else -1
            )
            text.append(STEPS[step] if step >= 0 else " ", style=_rgb(ROLES["weights"]))
        finite = [v for v in line if v == v]
        if finite:
            text.append(f" {number(finite[0])} … {number(finite[-1])}", style="dim")
        yield text


def _thinned(line: list[float], most: int) -> list[float]:
    if len(line) <= most:
        return line
    return [line[round(i * (len(line) - 1) / (most - 1))] for i in range(most)]


def _points(figure: Points, width: int, colours: bool) -> Iterator[Any]:
    """The first two dimensions, labels where the points are; one that would cover another is a dot."""
    rows, columns = 20, width
    places = figure.places[:, :2]
    low, high = places.min(axis=0), places.max(axis=0)
    unit = (places - low) / np.where(high > low, high - low, 1)
    canvas = [[" "] * columns for _ in range(rows)]
    for label, (x, y) in zip(figure.labels, unit, strict=True):
        text = visible(label, LABEL)
        c, row = round(x * (columns - len(text) - 1)), round((1 - y) * (rows - 1))
        for r in (row, row + 1, row - 1):  # where another one stands, a line below or above
            if 0 <= r < rows and all(letter == " " for letter in canvas[r][max(c - 1, 0) : c + len(text) + 1]):
                canvas[r][c : c + len(text)] = text
                break
        else:
            canvas[row][c] = "·" if canvas[row][c] == " " else canvas[row][c]
    for line in canvas:
        yield Text("".join(line).rstrip())
    if figure.axes:
        yield Text(f"across: {figure.axes[0]}, up: {figure.axes[1]}", style="dim")


def _rgb(colour: tuple[int, int, int]) -> str:
    return "rgb({},{},{})".format(*colour)


DRAWERS: dict[type, Any] = {
    Note: _note,
    Table: _table,
    HeatMap: _heat_map,
    Tokens: _tokens,
    Curves: _curves,
    Points: _points,
}
