"""Curves as geometry: what a template needs to draw them as SVG, without any drawing library.

A curve of any length is thinned to what can be seen: of all points that fall into one column of pixels the first, the
lowest, the highest and the last are kept, which draws the same pixels as all of them (M4: Jugel et al. 2014, "M4: a
visualization-oriented time series data aggregation", VLDB 7(10)). So a spike of one step never vanishes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate
from typing import Any

import numpy as np

WIDTH, LEFT, RIGHT, TOP, BOTTOM = 760, 64, 14, 12, 34  # user units of the SVG; LEFT ... are margins
SMOOTHED = 4000  # points of a smoothed curve
COLUMNS = 500  # columns of pixels that a curve is thinned to
Values = Sequence[float] | np.ndarray  # (N,)


@dataclass
class Series:
    """A curve: `values` at `steps`, (N,) each; `style` is a class of the style sheet. Not-numbers are left out."""

    name: str
    steps: Values
    values: Values
    style: str
    points: str = ""  # filled in by `line_chart`: the thinned curve in user units


@dataclass
class Chart:
    """What is drawn. `hover` is what the page reads out: the kept points with their exact values."""

    id: str
    title: str
    height: int
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    series: list[Series] = field(default_factory=list)
    lines: list[tuple[float, str]] = field(default_factory=list)  # level ones
    marks: list[tuple[float, str]] = field(default_factory=list)  # upright ones
    above: list[float] = field(default_factory=list)  # where values lie above the picture
    note: str = ""
    cells: list[tuple[str, str]] = field(default_factory=list)  # of a heat map: (colour, path)
    legend: list[tuple[str, str]] = field(default_factory=list)  # of a heat map: (colour, value)
    left: int = LEFT
    hover: dict[str, Any] = field(default_factory=dict)


class Scale:
    """From values to user units, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool):
        if log:
            low, high = max(low, 1e-12), max(high, 1e-12)
        if not high > low:
            low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, values: Any) -> np.ndarray:
        values = np.asarray(values, dtype=float)
        low, high = self.low, self.high
        if self.log:
            values, low, high = np.log(np.maximum(values, 1e-12)), math.log(low), math.log(high)
        return self.start + (values - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[tuple[float, str]]:
        """(place, label) of the round values inside."""
        values = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)
        return [(round(float(self(v)), 1), short(v)) for v in values]


def line_chart(
    id: str,
    title: str,
    series: Sequence[Series],
    *,
    x_log: bool = False,
    y_log: bool = False,
    y_from_zero: bool = False,
    lines: Sequence[tuple[str, float]] = (),
    marks: Sequence[tuple[float, str]] = (),
    ceiling: float | None = None,
    height: int = 280,
) -> Chart | None:
    """Curves over the steps; None when there is nothing to draw.

    Args:
        lines: level lines. marks: upright ones, at a step. ceiling: values above are drawn at the upper edge, marked
            and counted in the note, so that one wild value does not flatten all others.
    """
    known = [_finite(s, y_log) for s in series]
    drawn = [(s, x, y) for s, (x, y) in zip(series, known, strict=True) if len(x)]
    if not drawn:
        return None
    values = np.concatenate([y for _, _, y in drawn] + [np.array([v for _, v in lines])])
    low, high = (0.0 if y_from_zero else float(values.min())), float(values.max())
    if ceiling is not None:
        high = min(high, max(ceiling, low))
    if not y_log:
        pad = 0.04 * (high - low)
        low, high = (low if y_from_zero else low - pad), high + pad
    first, last = min(x[0] for _, x, _ in drawn), max(x[-1] for _, x, _ in drawn)
    x_scale = Scale(first, last, LEFT, WIDTH - RIGHT, x_log)
    y_scale = Scale(low, high, height - BOTTOM, TOP, y_log)
    chart = Chart(id, title, height, x_scale.ticks(), y_scale.ticks())
    chart.lines = [(round(float(y_scale(v)), 1), name) for name, v in lines]
    chart.marks = [(round(float(x_scale(step)), 1), name) for step, name in marks if first <= step <= last]
    chart.hover = {"left": LEFT, "right": WIDTH - RIGHT, "low": x_scale.low, "high": x_scale.high, "log": x_log}
    chart.hover["series"] = []
    beyond: list[tuple[float, float]] = []
    for s, x, y in drawn:
        at = x_scale(x)
        keep = thin(at, y, COLUMNS, LEFT, WIDTH - RIGHT)
        up = y_scale(np.minimum(y[keep], high))
        points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(at[keep], up, strict=True))
        kept = {"steps": [int(v) for v in x[keep]], "values": [float(f"{v:.5g}") for v in y[keep]]}
        chart.hover["series"].append({"name": s.name, **kept})
        chart.series.append(replace(s, points=points))
        over = np.flatnonzero(y > high)
        beyond += list(zip(x[over].tolist(), y[over].tolist(), strict=True))
    if beyond:
        step, value = max(beyond, key=lambda pair: pair[1])
        places = thin(x_scale([s for s, _ in beyond]), np.array([v for _, v in beyond]), 60, LEFT, WIDTH - RIGHT)
        chart.above = sorted({round(float(x_scale(beyond[i][0])), 0) for i in places})
        count = "1 value lies" if len(beyond) == 1 else f"{len(beyond):,} values lie"
        chart.note = f"▲ {count} above the picture; the highest is {value:.5g}, at step {int(step):,}."
    return chart


def thin(x: np.ndarray, y: np.ndarray, columns: int, start: float, end: float) -> np.ndarray:
    """Indices of the points to keep, ascending: of each column of pixels the first, lowest, highest and last.

    Args:
        x, y: (N,) each, x ascending, in the units of start and end (the edges of the picture).

    >>> thin(np.arange(6.0), np.array([0.0, 9.0, 1.0, 2.0, 3.0, 4.0]), 1, 0, 6).tolist()
    [0, 1, 5]
    """
    column = np.clip(((x - start) / max(end - start, 1e-12) * columns).astype(int), 0, columns - 1)
    first = np.flatnonzero(np.diff(column, prepend=-1))  # where each column begins
    last = np.append(first[1:], len(x)) - 1
    order = np.lexsort((y, column))  # within a column from the lowest to the highest
    return np.unique(np.concatenate([first, last, order[first], order[last]]))


def smooth(steps: Values, values: Values, span: float) -> tuple[np.ndarray, np.ndarray]:
    """Steps and means over the neighbours on both sides, so without a lag: weights fall by e within `span` / 2 steps.

    Not-numbers weigh nothing. More than `SMOOTHED` points are first joined to that many, which nobody can see.

    >>> smooth([1, 2, 3, 4], [1.0, 1.0, math.nan, 1.0], 4)[1].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    x, y = np.asarray(steps, dtype=float), np.asarray(values, dtype=float)
    joined = max(1, len(y) // SMOOTHED)
    known = np.isfinite(y)
    starts = np.arange(0, len(y), joined)
    if not len(starts):
        return x, y
    weight = np.add.reduceat(known.astype(float), starts)
    total = np.add.reduceat(np.where(known, y, 0.0), starts)
    keep = math.exp(-2 * joined / span)

    def both_sides(x: np.ndarray) -> np.ndarray:
        decayed = lambda a: np.array(list(accumulate(a.tolist(), lambda past, now: keep * past + now)))  # noqa: E731
        return decayed(x) + decayed(x[::-1])[::-1] - x  # each direction counts a step itself

    middle = x[np.minimum(starts + joined // 2, len(x) - 1)]
    near = both_sides(weight)
    return middle, np.where(near > 1e-9, both_sides(total) / np.maximum(near, 1e-9), math.nan)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round values between low and high: steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.3, 4.2)
    [1.0, 2.0, 3.0, 4.0]
    """
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough * (1 - 1e-9))
    return [round(i * step, 12) for i in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between low and high, with 2 and 5 where there are few; linear ones within a power of ten.

    >>> log_ticks(3, 400)
    [5.0, 10.0, 20.0, 50.0, 100.0, 200.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1,), (1, 2, 5)):
        found = [f * 10.0**p for p in powers for f in factors if low <= f * 10.0**p <= high]
        if len(found) >= 3:
            return found[:: math.ceil(len(found) / 8)]
    return ticks(low, high)


def short(value: float) -> str:
    """A tick's label.

    >>> short(20000.0), short(0.25), short(0.00003), short(0)
    ('20k', '0.25', '3e-05', '0')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 1:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def _finite(s: Series, positive: bool) -> tuple[np.ndarray, np.ndarray]:
    x, y = np.asarray(s.steps, dtype=float), np.asarray(s.values, dtype=float)
    fine = np.isfinite(y) & ((y > 0) if positive else True)
    return x[fine], y[fine]
