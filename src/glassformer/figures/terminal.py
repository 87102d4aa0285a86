"""Figures in a terminal, by rich: bars in eighths of a character, heat maps of half blocks, grids of numbers.

Everything fits into the width, and without colours (NO_COLOR, a file) shades are letters of different darkness and
numbers stand beside tokens.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.style import Style
from rich.table import Table as RichTable
from rich.text import Text

from glassformer.figures.axes import Scale, finite, limits
from glassformer.figures.colors import FULL_SURPRISE_BITS, css, line_color, role_color, shade
from glassformer.figures.primitives import Column, Curves, Figure, HeatMap, Note, Points, Table, Tokens
from glassformer.figures.text import bar, number, visible

BACKGROUND = 24  # how light the middle of a scale is: most terminals are dark
LABEL = 12  # characters of a row's label
COLUMN_LABEL = 8  # letters of a label that is read downwards
BAR = 20  # characters of the longest bar
ROWS_OF_CURVE, ROWS_OF_POINTS = 6, 20
MOST_POINTS = 200
SHADES = " ·░▒▓█"
STEPS = " ▁▂▃▄▅▆▇█"
WRITING = "rgb(245,245,245)"  # letters on a colour


def to_terminal(figures: Sequence[Figure], console: Console, options: ConsoleOptions) -> Iterator[Any]:
    """Each figure in turn, as renderables; an empty line between two."""
    colors = not console.no_color and console.color_system is not None
    for i, (line, group) in enumerate(itertools.groupby(figures, key=_line)):
        if i:
            yield Text()
        if line[0]:
            maps = [figure for figure in group if isinstance(figure, HeatMap)]
            yield from _beside(line[0], maps, options.max_width, colors)
            continue
        (figure,) = group
        if figure.title:
            yield Text(figure.title, style="bold")
        yield from DRAWERS[type(figure)](figure, options.max_width, colors)


def _line(figure: Figure) -> tuple[str, int]:
    """The line of small maps that a figure stands in; the others each have one of their own."""
    line = figure.line if isinstance(figure, HeatMap) else ""
    return line, 0 if line else id(figure)


def _beside(name: str, maps: Sequence[HeatMap], width: int, colors: bool) -> Iterator[Text]:
    """Small maps beside each other below their titles, as many as fit into the width; the legend is the first one's."""
    yield Text(name, style="bold")
    each = max(max(len(figure.title), figure.values.shape[1]) for figure in maps) + 2
    for start in range(0, len(maps), most := max(1, width // each)):
        part = maps[start : start + most]
        yield Text("".join(f"{figure.title:<{each}}" for figure in part).rstrip(), style="dim")
        for lines in zip(*(_small(figure, each, colors) for figure in part), strict=True):
            yield Text.assemble(*lines)


def _small(figure: HeatMap, width: int, colors: bool) -> list[Text]:
    shares = figure.shares().tolist()
    rows = range(0, len(shares), 2 if colors else 1)
    lines = [_halves(figure, shares, r) if colors else Text("".join(map(_letter, shares[r]))) for r in rows]
    return [line + Text(" " * (width - len(line))) for line in lines]


def to_text(figures: Sequence[Figure], width: int = 80) -> str:
    """The same as plain text."""
    console = Console(width=width, no_color=True, highlight=False)
    with console.capture() as captured:
        for part in to_terminal(figures, console, console.options):
            console.print(part)
    return captured.get()


def surprise_style(probability: float) -> Style:
    """The style of a token of this probability: the more bits of surprise, the redder the background."""
    bits = FULL_SURPRISE_BITS if probability <= 0 else -math.log2(probability)
    return Style(color=WRITING, bgcolor=css(shade("value", bits / FULL_SURPRISE_BITS, background=BACKGROUND)))


def _note(figure: Note, width: int, colors: bool) -> Iterator[Any]:
    yield Text(figure.text)


def _table(figure: Table, width: int, colors: bool) -> Iterator[Any]:
    if not figure.rows and not figure.footer:
        return
    cells = figure.cells()
    widths = [max([len(c.name), *(len(row[i].text) for row in cells)]) for i, c in enumerate(figure.columns)]
    barred = sum(column.has_bar for column in figure.columns)
    left = width - sum(widths) - 2 * (len(widths) + barred)
    length = max(4, min(BAR, left // max(barred, 1))) if left >= 4 * barred else 0  # no space: no bars
    grid = RichTable(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim", expand=False)
    for i, column in enumerate(figure.columns):
        whole = column.kind != "text" or widths[i] <= width // 4
        grid.add_column(
            column.name,
            justify="right" if column.is_number else "left",
            no_wrap=whole,
            min_width=widths[i] if whole and left >= 0 else None,
        )
        if column.has_bar and length:
            grid.add_column("", no_wrap=True, min_width=length)
    for r, row in enumerate(cells):
        shown = []
        for cell, column in zip(row, figure.columns, strict=True):
            shown.append(Text(cell.text, overflow="fold" if column.kind == "text" else "ellipsis"))
            if column.has_bar and length:
                shown.append(_bar(cell.bar, column, length))
        grid.add_row(*shown, style="bold" if r in figure.marked else None)
    yield grid


def _bar(share: float | None, column: Column, length: int) -> Text:
    if share is None:
        return Text()
    color = css(role_color(column.role, share))
    if column.kind == "share":
        return Text(bar(share, length), style=color)
    half = length // 2 - 1  # signed: from the middle, to the left or to the right
    filled = "█" * round(abs(share) * half)
    if share < 0:
        return Text(" " * (half - len(filled))) + Text(filled, style=color) + Text("│", style="dim")
    return Text(" " * half) + Text("│", style="dim") + Text(filled, style=color)


def _heat_map(figure: HeatMap, width: int, colors: bool) -> Iterator[Any]:
    axes = (("down", figure.row_axis), ("across", figure.column_axis))
    if any(axis for _, axis in axes):
        yield Text(" ".join(f"{name}: {axis}" for name, axis in axes if axis), style="dim")
    if not figure.values.size:
        return
    labels = [visible(label, LABEL) for label in figure.rows]
    left, C = max(map(len, labels), default=0), figure.values.shape[1]
    cell = max(4 + figure.digits + figure.signed, 1)
    if not figure.compact and left + 1 + cell * C <= width and C <= 16:
        yield from _numbers(figure, labels, left, cell)
        if colors:
            yield _legend(figure, colors)
        return
    columns = max(width - left - 2 - (LABEL + 1 if colors else 0), 8)
    for start in range(0, C, columns):  # wider than the terminal: in pieces, each with its labels
        yield from _blocks(figure, labels, left, slice(start, start + columns), colors)
    yield _legend(figure, colors)


def _legend(figure: HeatMap, colors: bool) -> Text:
    """The numbers at the ends of the colours, or of the letters."""
    low = number(figure.lowest) if figure.lowest else "0"
    line = Text(f"{low} ", style="dim")
    if colors:
        for i in range(-8 if figure.signed else 0, 9, 2 if figure.signed else 1):
            line.append("  ", style=Style(bgcolor=_color(figure, i / 8)))
    else:
        shares = (-1.0, -0.3, *(i / 5 for i in range(6))) if figure.signed else tuple(i / 5 for i in range(6))
        line.append("".join(_letter(share) for share in shares))
    return line + Text(f" {number(figure.scale)}", style="dim")


def _numbers(figure: HeatMap, labels: list[str], left: int, cell: int) -> Iterator[Text]:
    """A grid of numbers, each on its colour."""
    head = Text(" " * (left + 1))
    for name in figure.columns:
        head.append(f"{visible(name, cell - 1):>{cell}}", style="dim")
    yield head
    for label, row, shares in zip(labels, figure.values, figure.shares(), strict=True):
        line = Text(f"{label:>{left}} ")
        for value, share in zip(row.tolist(), shares.tolist(), strict=True):
            empty = share != share
            text = "" if empty else _short(value, figure.digits, cell)
            line.append(
                f"{text:>{cell}}", style=Style() if empty else Style(color=WRITING, bgcolor=_color(figure, share))
            )
        yield line


def _blocks(figure: HeatMap, labels: list[str], left: int, part: slice, colors: bool) -> Iterator[Text]:
    """One character a column and, where there are colours, two rows a line (the lower one's label to the right)."""
    names = [visible(name, COLUMN_LABEL) for name in figure.columns[part]]
    for i in range(max(map(len, names), default=0)):
        yield Text(" " * (left + 1) + "".join(name[i] if i < len(name) else " " for name in names), style="dim")
    shares = figure.shares()[:, part].tolist()
    labels = labels or [""] * len(shares)
    if not colors:
        for label, row in zip(labels, shares, strict=True):
            yield Text(f"{label:>{left}} " + "".join(map(_letter, row)))
        return
    for r in range(0, len(shares), 2):
        line = Text(f"{labels[r]:>{left}} ") + _halves(figure, shares, r)
        line.append(f" {labels[r + 1]}" if r + 1 < len(shares) else "")
        yield line


def _halves(figure: HeatMap, shares: list[list[float]], r: int) -> Text:
    """Rows r and r + 1 in one line of half blocks."""
    line = Text()
    below = shares[r + 1] if r + 1 < len(shares) else [None] * len(shares[r])
    for upper, lower in zip(shares[r], below, strict=True):
        under = None if lower is None else _color(figure, lower)
        line.append("▀", style=Style(color=_color(figure, upper), bgcolor=under))
    return line


def _letter(share: float) -> str:
    """A shade as a letter; negative numbers as a minus where they are strong."""
    if share != share:
        return " "
    if share < -0.1:
        return "-" if share > -0.5 else "="
    return SHADES[round(abs(share) * (len(SHADES) - 1))]


def _color(figure: HeatMap, share: float) -> str:
    return css(shade(figure.role, 0.0 if share != share else share, background=BACKGROUND))


def _short(value: float, digits: int, cell: int) -> str:
    """A number with as many digits as there is space for, or as a power of ten.

    >>> _short(71.24, 1, 5), _short(7123.4, 1, 5), _short(71234.5, 1, 5)
    ('71.2', '7123', '7e4')
    """
    for left in range(digits, -1, -1):
        if len(text := f"{value:.{left}f}") < cell:
            return text
    mantissa, _, exponent = f"{value:.0e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def _tokens(figure: Tokens, width: int, colors: bool) -> Iterator[Any]:
    line = Text()
    for text, value in zip(figure.texts, figure.values, strict=True):
        shown = text.replace("\\n", "⏎\n")
        if value is None:
            line.append(shown, style="dim" if figure.unit else "")
        elif colors:
            color = shade(figure.role, value / figure.scale, background=BACKGROUND)
            line.append(shown, style=Style(color=WRITING, bgcolor=css(color)))
        else:
            head, newline, rest = shown.partition("\n")
            line.append(f"{head}({value:.{figure.digits}f}){newline}{rest}")
    yield line
    if colors and figure.unit:
        legend = Text("0 ", style="dim")
        for i in range(9):
            legend.append("  ", style=Style(bgcolor=css(shade(figure.role, i / 8, background=BACKGROUND))))
        yield legend + Text(f" {number(figure.scale, figure.digits)} {figure.unit}", style="dim")


def _curves(figure: Curves, width: int, colors: bool) -> Iterator[Any]:
    """One line as a chart of blocks; several as a line of blocks each, with the first and the last value."""
    edges = limits(figure)
    if edges is None:
        yield Text("no numbers to draw", style="dim")
        return
    if figure.x_axis or figure.y_axis:
        yield Text(f"{figure.y_axis} over {figure.x_axis}" if figure.x_axis else figure.y_axis, style="dim")
    seen = [np.asarray(line.y, dtype=float)[finite(line, figure)] for line in figure.lines]
    low, high = (float(edge(np.concatenate(seen))) for edge in (np.min, np.max))
    high = figure.y_max if figure.y_max is not None else high
    if len(figure.lines) == 1:
        columns = _columns(figure, 0, width - 10)
        yield from (Text(line, style="cyan") for line in _blocks_of_curve(columns, low, high, figure.y_log))
        return
    left = min(max((len(line.name) for line in figure.lines), default=0), 24)
    up = Scale(low, high, 1, len(STEPS) - 1, figure.y_log)
    for i, line in enumerate(figure.lines):
        text, color = (
            Text(f"{line.name[:left]:<{left}} "),
            line_color(i if line.color is None else line.color, dark=True),
        )
        for value in _columns(figure, i, width - left - 24):
            step = 0 if value != value else 1 if high == low else round(float(up(min(value, high))))
            text.append(STEPS[step], style=css(color))
        if len(seen[i]):
            text.append(f" {number(seen[i][0])} … {number(seen[i][-1])}", style="dim")
        yield text


def _columns(figure: Curves, index: int, most: int) -> list[float]:
    """The values of a line, one for each column of characters; NaN where it has none."""
    places = sorted({float(x) for line in figure.lines for x in line.x})
    line = figure.lines[index]
    x, y = (np.asarray(values, dtype=float) for values in (line.x, line.y))
    if len(places) <= most:
        columns = np.searchsorted(places, x)
        n = len(places)
    else:
        n = most
        columns = np.rint(Scale(places[0], places[-1], 0, n - 1, figure.x_log)(x)).astype(int)
    values = np.full(n, math.nan)
    values[columns] = y  # the last of those that share a column
    return values.tolist()  # type: ignore[no-any-return]


def _blocks_of_curve(values: list[float], low: float, high: float, log: bool) -> Iterator[str]:
    """A curve of blocks from `low` to `high`, each line with its value.

    >>> for line in _blocks_of_curve([4.0, 3.0, 2.0, 9.0], 2.0, 4.0, False): print(line)
     4.00 ┤█  █
     3.60 ┤█  █
     3.20 ┤█  █
     2.80 ┤██ █
     2.40 ┤██ █
     2.00 ┤██▁█
    """
    rows = ROWS_OF_CURVE
    up = Scale(low, high, 0, 8 * rows, log)
    eighths = [0 if v != v else max(1, min(8 * rows, round(float(up(v))))) for v in values]
    back = Scale(0, 8 * rows, math.log(max(up.low, 1e-12)), math.log(max(up.high, 1e-12)))
    for row in range(rows - 1, -1, -1):
        share = row / (rows - 1)
        value = math.exp(float(back(share * 8 * rows))) if log else up.low + (up.high - up.low) * share
        cells = "".join(STEPS[max(0, min(8, e - 8 * row))] for e in eighths)
        label = f"{value:5.2f}" if 0.01 <= abs(value) < 100 or value == 0 else f"{value:5.0e}".replace("e-0", "e-")
        yield f"{label:>5} ┤{cells}".rstrip()


def _points(figure: Points, width: int, colors: bool) -> Iterator[Any]:
    """The first two dimensions, labels where the points are; one that would cover another is a dot."""
    places = figure.places[:, :2]
    low, high = places.min(axis=0), places.max(axis=0)
    some = np.unique(np.linspace(0, len(places) - 1, min(len(places), MOST_POINTS)).astype(int))
    places = places[some]
    unit = (places - low) / np.where(high > low, high - low, 1)
    n_rows = min(ROWS_OF_POINTS, 2 * len(np.unique(places[:, 1])) + 1)
    canvas = [[" "] * width for _ in range(n_rows)]
    for label, (x, y) in zip([figure.labels[i] for i in some], unit, strict=True):
        text = visible(label, LABEL)
        c, row = round(x * (width - len(text) - 1)), round((1 - y) * (n_rows - 1))
        for r in (row, row + 1, row - 1):  # a line below or above, where there is another one
            if 0 <= r < n_rows and all(c == " " for c in canvas[r][max(c - 1, 0) : c + len(text) + 1]):
                canvas[r][c : c + len(text)] = text
                break
        else:
            canvas[row][c] = "·" if canvas[row][c] == " " else canvas[row][c]
    for line in canvas:
        yield Text("".join(line).rstrip())
    if figure.axes:
        yield Text(f"across: {figure.axes[0]}, up: {figure.axes[1]}", style="dim")
    if len(some) < len(figure.labels):
        yield Text(f"drawn: {len(some):,} of {len(figure.labels):,} points", style="dim")


DRAWERS: dict[type, Any] = {
    Note: _note,
    Table: _table,
    HeatMap: _heat_map,
    Tokens: _tokens,
    Curves: _curves,
    Points: _points,
}
