"""Charts, heat maps and points as SVG: within a page (`draw`), or as a file of its own (`to_svg`).

There is no script and no font from elsewhere, and colours follow the reader's light or dark page. Numbers stand in
`data-value` and, where a pointer rests on them, in a title.
"""

from __future__ import annotations

import math
import textwrap
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures.axes import Scale, finite, limits, thin
from glassformer.figures.colors import LINES, css, role_color
from glassformer.figures.primitives import Curves, Figure, HeatMap, Note, Points
from glassformer.figures.text import number, visible
from glassformer.processors.tokenizers.alphabet import legible

WIDTH = 760.0  # of a drawing, user units; wider only where a heat map has many labelled columns
LEFT, RIGHT, TOP, BOTTOM = 64.0, 14.0, 12.0, 34.0  # margins of a chart
CHART_HEIGHT, COMPACT_CHART_HEIGHT, POINTS_HEIGHT = 320.0, 190.0, 400.0
LETTER = 7.0  # width of a letter
ROW_LABEL, COLUMN_LABEL = 30, 18  # letters of a heat map's label
MOST_NUMBERS = 24  # columns of a heat map whose cells also have their number written
MOST_DOTS = 80  # values of a line that are marked
COLUMNS = 500  # columns of pixels that a line is thinned to
SHADES = 24  # colours that cells are joined by where they have no titles
MOST_POINTS = 500
GAP = 16.0


class Drawing(NamedTuple):
    """Markup of a size, and the place of its numbers, (left, top, right, bottom)."""

    markup: str
    width: float
    height: float
    frame: tuple[float, float, float, float]

    def svg(self, title: str = "", attributes: str = "") -> str:
        """An element for a page; what is wider than `WIDTH` is not made smaller, its labels could not be read."""
        more = f' style="min-width:{_n(self.width)}px"' if self.width > WIDTH else ""
        return (
            f'<svg viewBox="0 0 {_n(self.width)} {_n(self.height)}" width="{_n(self.width)}" role="img" '
            f'aria-label="{_xml(title)}"{more}{attributes}>{self.markup}</svg>'
        )


def draw(figure: Figure, *, titles: bool = True) -> Drawing:
    """A figure without its title; `titles`: numbers stand in the picture, where a pointer finds them.

    Raises:
        UsageError: it is a table or a text, which SVG has no good form for.
    """
    if type(figure) not in DRAWERS:
        raise UsageError(
            f"a {type(figure).__name__} cannot be drawn as SVG; write it as HTML, or draw a heat map, curves or points"
        )
    return DRAWERS[type(figure)](figure, titles)  # type: ignore[no-any-return]


def to_svg(figures: Sequence[Figure], title: str = "") -> str:
    """A file: the figures below each other, small ones beside each other.

    Raises:
        UsageError: as of `draw`.
    """
    parts = [_text(GAP, 24, title, size=15, bold=True)] if title else []
    x, y, row, right, line = GAP, 36.0 if title else 8.0, 0.0, WIDTH, ""
    for figure in figures:
        drawing = draw(figure)
        is_compact = isinstance(figure, HeatMap) and figure.compact
        head = 0.0 if isinstance(figure, Note) or not figure.title else 18.0 if is_compact else 30.0
        own_line = figure.line if isinstance(figure, HeatMap) and figure.compact else ""
        if x > GAP and (not is_compact or own_line != line or x + drawing.width > max(right, WIDTH + GAP)):
            x, y, row = GAP, y + row + GAP, 0.0
        line = own_line
        if head:
            parts.append(_text(x, y + head - 8, figure.title, size=11 if is_compact else 13, bold=not is_compact))
        parts.append(f'<g transform="translate({_n(x)} {_n(y + head)})">{drawing.markup}</g>')
        right, row = max(right, x + drawing.width), max(row, head + drawing.height)
        x += drawing.width + GAP
        if not is_compact:
            x, y, row = GAP, y + row + GAP, 0.0
    width, height = right + GAP, y + row + GAP
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="gf" viewBox="0 0 {_n(width)} {_n(height)}" '
        f'width="{_n(width)}" height="{_n(height)}" role="img">\n<style>{style()}</style>\n'
        f'<rect class="paper" width="100%" height="100%"/>\n' + "\n".join(parts) + "\n</svg>\n"
    )


@lru_cache(maxsize=1)
def style() -> str:
    """The style sheet of figures in pages and files."""
    rules = [f".gf .l{i} {{ --c: {css(light)}; }}" for i, (light, _) in enumerate(LINES)]
    dark = "".join(f" .gf .l{i} {{ --c: {css(dark)}; }}" for i, (_, dark) in enumerate(LINES))
    sheet = Path(__file__).with_name("figures.css").read_text(encoding="utf-8")
    return "\n".join([sheet.strip(), *rules, f"@media screen and (prefers-color-scheme: dark) {{{dark} }}"])


def _note(figure: Note, titles: bool) -> Drawing:
    lines = [line for text in figure.text.split("\n") for line in textwrap.wrap(text, 110) or [""]]
    markup = "".join(_text(0, 14 + 16 * i, line, dim=True) for i, line in enumerate(lines))
    return Drawing(markup, max(map(_width_of, lines), default=0.0), 16.0 * len(lines), (0, 0, 0, 0))


def _curves(figure: Curves, titles: bool) -> Drawing:
    edges = limits(figure)
    if edges is None:
        return Drawing(_text(0, 14, "no numbers to draw", dim=True), WIDTH, 20, (0, 0, 0, 0))
    legend, top = _legend_of_lines(figure)
    top += TOP
    bottom = top + (COMPACT_CHART_HEIGHT if figure.compact else CHART_HEIGHT) - TOP - BOTTOM
    across = Scale(*edges[:2], LEFT, WIDTH - RIGHT, figure.x_log)
    up = Scale(*edges[2:], bottom, top, figure.y_log)
    parts = [legend]
    for y, label in up.ticks():
        parts.append(f'<path class="grid" d="M{_n(LEFT)} {y}H{_n(WIDTH - RIGHT)}"/>')
        parts.append(_text(LEFT - 6, y + 4, label, anchor="end", dim=True))
    for x, label in across.ticks(figure.x_labels):
        parts.append(_text(min(x, WIDTH), bottom + 16, label, anchor="end" if x > WIDTH - 40 else "middle", dim=True))
    parts.append(_text(WIDTH - RIGHT, bottom + 31, figure.x_axis, anchor="end", dim=True))
    for name, place in figure.events:
        if edges[0] <= place <= edges[1]:
            at = _n(float(across(place)))
            parts.append(f'<path class="event" d="M{at} {_n(top)}V{_n(bottom)}"><title>{_xml(name)}</title></path>')
    beyond: list[tuple[float, float]] = []
    for i, line in enumerate(figure.lines):
        parts.append(_line(figure, i, across, up, titles))
        if figure.y_max is not None:
            drawn = finite(line, figure)
            x_all, y_all = np.asarray(line.x, dtype=float)[drawn], np.asarray(line.y, dtype=float)[drawn]
            beyond += [(float(x_all[k]), float(y_all[k])) for k in np.flatnonzero(y_all > max(edges[3], figure.y_max))]
    for name, value in figure.levels:
        y = float(up(value))
        parts.append(f'<path class="level" d="M{_n(LEFT)} {_n(y)}H{_n(WIDTH - RIGHT)}"/>')
        parts.append(_text(WIDTH - RIGHT - 2, y - 5, name, anchor="end", dim=True, name="halo"))
    height = bottom + BOTTOM
    if beyond:
        parts.append(_above(beyond, across, top, height))
        height += 18
    return Drawing("".join(parts), WIDTH, height, (LEFT, top, WIDTH - RIGHT, bottom))


def _line(figure: Curves, index: int, across: Scale, up: Scale, titles: bool) -> str:
    line = figure.lines[index]
    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    drawn = finite(line, figure)
    if not len(drawn):
        return ""
    drawn = drawn[np.argsort(x[drawn], kind="stable")]
    places = across(x[drawn])
    keep = drawn[thin(places, y[drawn], COLUMNS, across.start, across.end)]
    to_y = lambda values: up(np.minimum(values, up.high))  # noqa: E731
    at, heights = across(x[keep]), to_y(y[keep])
    kind = f"l{(index if line.color is None else line.color) % len(LINES)}{' faint' if line.faint else ''}"
    parts = []
    if line.low is not None and line.high is not None:
        low, high = (np.asarray(edge, dtype=float)[keep] for edge in (line.low, line.high))
        known = np.flatnonzero(np.isfinite(low) & np.isfinite(high) & ((low > 0) | (not figure.y_log)))
        outline = [*zip(at[known], to_y(high[known]), strict=True), *zip(at[known], to_y(low[known]), strict=True)]
        outline[len(known) :] = outline[len(known) :][::-1]
        parts.append(f'<polygon class="band" points="{_points_of(outline)}"/>')
    gaps = np.flatnonzero(np.isnan(y)) if len(keep) == len(drawn) else np.array([], dtype=int)
    for piece in np.split(np.arange(len(keep)), np.searchsorted(keep, gaps)):
        if len(piece):
            values = f' data-value="{" ".join(f"{v:.6g}" for v in y[keep[piece]])}"' if titles else ""
            points = _points_of(zip(at[piece], heights[piece], strict=True))
            parts.append(f'<polyline points="{points}"{values}/>')
    if (line.dots or len(drawn) == 1) and len(keep) <= MOST_DOTS:
        parts += [f'<circle cx="{_n(a)}" cy="{_n(b)}" r="2.5"/>' for a, b in zip(at, heights, strict=True)]
    return f'<g class="{kind}">{"".join(parts)}</g>'


def _above(beyond: list[tuple[float, float]], across: Scale, top: float, bottom: float) -> str:
    """Where values lie above the picture, and the highest of them."""
    at, value = max(beyond, key=lambda pair: pair[1])
    xs, ys = np.array(sorted(beyond)).T
    places = {round(float(across(xs[i]))) for i in thin(across(xs), ys, 60, across.start, across.end)}
    marks = "".join(f"M{x - 5} {_n(top + 8)}L{x} {_n(top)}L{x + 5} {_n(top + 8)}z" for x in sorted(places))
    count = "1 value is" if len(beyond) == 1 else f"{len(beyond):,} values are"
    note = f"▲ {count} above the picture; the highest is {value:.5g}, at {at:,.6g}."
    return f'<path class="above" d="{marks}"/>' + _text(LEFT, bottom + 8, note, dim=True)


def _legend_of_lines(figure: Curves) -> tuple[str, float]:
    """The name of the y-axis and, of several lines, their colours and names; and how high that is."""
    parts, x, y = [], LEFT, 14.0
    if figure.y_axis:
        parts.append(_text(x, y, figure.y_axis, dim=True))
        x += _width_of(figure.y_axis) + GAP
    for i, line in enumerate(figure.lines if len(figure.lines) > 1 else ()):
        length = 22 + _width_of(line.name) + GAP
        if x + length > WIDTH and x > LEFT:
            x, y = LEFT, y + 17
        kind = f"l{(i if line.color is None else line.color) % len(LINES)}{' faint' if line.faint else ''}"
        parts.append(f'<rect class="key {kind}" x="{_n(x)}" y="{_n(y - 7)}" width="16" height="5"/>')
        parts.append(_text(x + 22, y, line.name))
        x += length
    return "".join(parts), y + 6 if parts else 0.0


def _heat_map(figure: HeatMap, titles: bool) -> Drawing:
    R, C = figure.values.shape
    if not R or not C:
        return Drawing(_text(0, 14, "no numbers to draw", dim=True), WIDTH, 20, (0, 0, 0, 0))
    if figure.compact:
        side = min(13.0, max(2.0, 180 / C))
        return Drawing(_joined_cells(figure, 0, 0, side, side), side * C, side * R, (0, 0, side * C, side * R))
    rows = [visible(label, ROW_LABEL) for label in figure.rows]
    columns = [visible(label, COLUMN_LABEL) for label in figure.columns]
    left = max(map(_width_of, rows), default=0) + 8
    texts = _numbers(figure) if C <= MOST_NUMBERS and R * C <= 1024 else None
    longest = max(map(_width_of, texts.ravel())) * 0.85 + 6 if texts is not None else 0.0
    counts_across, counts_down = all(map(_is_number, columns)), all(map(_is_number, rows))
    width = max(longest, min(22.0, (WIDTH - left) / C) if counts_across else 15.0, 3.0)
    height = 20.0 if texts is not None else max(3.0, min(17.0, 600 / R)) if counts_down else 17.0
    caption, top = _caption(figure)
    upright = not counts_across and any(_width_of(label) > width for label in columns)
    top += max(map(_width_of, columns)) + 10 if upright else 18
    parts = [caption]
    every = max(1, math.ceil((max(map(_width_of, columns)) + 8) / width)) if counts_across else 1
    for c, label in enumerate(columns):
        x = left + (c + 0.5) * width
        if upright:
            parts.append(
                f'<text class="dim" transform="translate({_n(x + 4)} {_n(top - 6)}) rotate(-90)">{_xml(label)}</text>'
            )
        elif c % every == 0:
            parts.append(_text(x, top - 5, label, anchor="middle", dim=True))
    for r, label in enumerate(rows):
        if r % max(1, math.ceil(12 / height)) == 0:
            parts.append(_text(left - 6, top + (r + 0.5) * height + 4, label, anchor="end", dim=True))
    if titles or texts is not None:
        parts.append(_cells(figure, texts, left, top, width, height))
    else:
        parts.append(_joined_cells(figure, left, top, width, height))
    right, bottom = left + C * width, top + R * height
    return Drawing("".join(parts), max(WIDTH, right + 2), bottom + 4, (left, top, right, bottom))


def _numbers(figure: HeatMap) -> np.ndarray:
    """Every number as text for its cell, (rows, columns)."""

    def shown(value: float) -> str:
        return f"{value:.1e}" if figure.log else f"{value:.{figure.digits}f}"

    return np.vectorize(lambda v: shown(v) if math.isfinite(v) else "", otypes=[object])(figure.values)  # type: ignore[no-any-return]


def _cells(figure: HeatMap, texts: np.ndarray | None, x: float, y: float, width: float, height: float) -> str:
    """A rectangle for each number, with a title of its row, column and value."""
    parts, shares = [], figure.shares()
    masked = ""
    for (r, c), share in np.ndenumerate(shares):
        left, top = x + c * width, y + r * height
        if share != share:
            masked += f"M{_n(left)} {_n(top + height)}L{_n(left + width)} {_n(top)}"
            continue
        value = float(figure.values[r, c])
        about = _xml(f"{visible(figure.rows[r])} · {visible(figure.columns[c])}: {value:.6g}")
        fill = css(role_color(figure.role, share), abs(share))
        parts.append(
            f'<rect x="{_n(left)}" y="{_n(top)}" width="{_n(width)}" height="{_n(height)}" fill="{fill}" '
            f'data-value="{value!r}"><title>{about}</title></rect>'
        )
        if texts is not None:
            parts.append(
                f'<text class="cell" x="{_n(left + width / 2)}" y="{_n(top + height / 2 + 3.5)}">{texts[r, c]}</text>'
            )
    return "".join(parts) + (f'<path class="masked" d="{masked}"/>' if masked else "")


def _joined_cells(figure: HeatMap, x: float, y: float, width: float, height: float) -> str:
    """Cells of one shade as one path, neighbours in a row joined: a tenth of the size."""
    shares = np.nan_to_num(figure.shares())
    shades = np.rint(shares * SHADES).astype(int)
    paths: dict[int, list[str]] = {}
    for r, row in enumerate(shades):
        starts = np.flatnonzero(np.diff(row, prepend=row[0] + 1))
        for start, end in zip(starts, [*starts[1:], len(row)], strict=True):
            if row[start]:
                run = (end - start) * width
                box = f"M{_n(x + start * width)} {_n(y + r * height)}h{_n(run)}v{_n(height)}h{_n(-run)}z"
                paths.setdefault(int(row[start]), []).append(box)
    struck = "".join(
        f"M{_n(x + c * width)} {_n(y + (r + 1) * height)}l{_n(width)} {_n(-height)}"
        for r, c in np.argwhere(np.isnan(figure.shares()))
    )
    drawn = f'<path class="masked" d="{struck}"/>' if struck else ""
    drawn += "".join(
        f'<path d="{"".join(boxes)}" fill="{css(role_color(figure.role, shade), abs(shade) / SHADES)}"/>'
        for shade, boxes in sorted(paths.items())
    )
    R, C = shares.shape
    outline = f'<rect class="frame" x="{_n(x)}" y="{_n(y)}" width="{_n(C * width)}" height="{_n(R * height)}"/>'
    return f'<g shape-rendering="crispEdges">{drawn}</g>{outline}'


def _caption(figure: HeatMap) -> tuple[str, float]:
    """The names of the axes and the legend of the colours; and how high that is."""
    axes = (("down", figure.row_axis), ("across", figure.column_axis))
    text = " · ".join(f"{name}: {axis}" for name, axis in axes if axis)
    low = figure.lowest
    ends = (f"{low:.1e}", f"{figure.scale:.1e}") if figure.log else (number(low) if low else "0", number(figure.scale))
    steps = np.linspace(-1.0 if figure.signed else 0.0, 1.0, 17 if figure.signed else 9)
    x = _width_of(text) + (GAP if text else 0)
    parts = [_text(0, 14, text, dim=True), _text(x, 14, ends[0], dim=True, name="low")]
    x += _width_of(ends[0]) + 6
    for share in steps:
        fill = css(role_color(figure.role, share), abs(share))
        parts.append(f'<rect class="scale" x="{_n(x)}" y="4" width="12" height="12" fill="{fill}"/>')
        x += 12
    parts.append(f'<rect class="frame" x="{_n(x - 12 * len(steps))}" y="4" width="{12 * len(steps)}" height="12"/>')
    parts.append(_text(x + 6, 14, ends[1], dim=True, name="high"))
    return "".join(parts), 24.0


def _points(figure: Points, titles: bool) -> Drawing:
    """Places in user units; what is nearer, in the third dimension, is stronger."""
    places = np.asarray(figure.places, dtype=float)
    low, high = places.min(axis=0), places.max(axis=0)
    some = np.unique(np.linspace(0, len(places) - 1, min(len(places), MOST_POINTS)).astype(int))
    places, parts = places[some], []
    for label, unit, place in zip(
        [figure.labels[i] for i in some], (places - low) / np.where(high > low, high - low, 1), places, strict=True
    ):
        x, y = 30 + (WIDTH - 160) * unit[0], 20 + (POINTS_HEIGHT - 60) * (1 - unit[1])
        depth = 0.35 + 0.65 * (unit[2] if len(unit) > 2 else 1.0)
        held = " ".join(f"{v:.6g}" for v in place)
        parts.append(
            f'<g class="l0" opacity="{depth:.2f}" data-value="{held}"><circle cx="{_n(x)}" cy="{_n(y)}" r="3.5"/>'
            + _text(x + 6, y + 4, visible(label, 20))
            + "</g>"
        )
    sides = zip(("across", "up", "near (stronger)"), figure.axes, strict=False)
    if len(some) < len(figure.labels):
        parts.append(_text(30, 14, f"drawn: {len(some):,} of {len(figure.labels):,} points", dim=True))
    parts.append(_text(30, POINTS_HEIGHT - 8, " · ".join(f"{side}: {name}" for side, name in sides), dim=True))
    return Drawing("".join(parts), WIDTH, POINTS_HEIGHT, (0, 0, 0, 0))


def _text(
    x: float,
    y: float,
    text: str,
    *,
    anchor: str = "start",
    dim: bool = False,
    size: int = 12,
    bold: bool = False,
    name: str = "",
) -> str:
    if not text:
        return ""
    kind = " ".join(part for part in ("dim" if dim else "", name) if part)
    more = f' class="{kind}"' if kind else ""
    more += f' text-anchor="{anchor}"' if anchor != "start" else ""
    more += f' font-size="{size}"' if size != 12 else ""
    more += ' font-weight="bold"' if bold else ""
    return f'<text x="{_n(x)}" y="{_n(y)}"{more}>{_xml(text)}</text>'


def _points_of(pairs: Any) -> str:
    return " ".join(f"{_n(x)},{_n(y)}" for x, y in pairs)


def _n(value: float) -> str:
    """A place with a tenth of a unit, without a needless zero."""
    return f"{value:.1f}".removesuffix(".0")


def _xml(text: str) -> str:
    """Text as XML may hold it."""
    return escape(legible(text))


def _width_of(text: str) -> float:
    """The width of a text in user units: letters of Chinese, Japanese and Korean are two wide."""
    return LETTER * sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _is_number(label: str) -> bool:
    return label.replace(",", "").replace(".", "", 1).lstrip("-").isdigit()


DRAWERS: dict[type, Any] = {Note: _note, Curves: _curves, Points: _points, HeatMap: _heat_map}
