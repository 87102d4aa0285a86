"""From numbers to places in a picture: scales, round ticks, and curves thinned to what can be seen."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from glassformer.figures.primitives import Curves, Line
from glassformer.figures.text import short_number

SMALLEST = 1e-12  # of a logarithmic scale


class Scale:
    """From numbers low..high to places start..end, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool = False):
        if log:
            low, high = max(low, SMALLEST), max(high, SMALLEST)
        if not high > low:
            low, high = (low / 2, low * 2) if log else (low - 0.5, low + 0.5)
        self.low, self.high, self.start, self.end, self.log = low, high, start, end, log

    def __call__(self, values: Any) -> np.ndarray:
        values, low, high = np.asarray(values, dtype=float), self.low, self.high
        if self.log:
            values, low, high = np.log(np.maximum(values, SMALLEST)), math.log(low), math.log(high)
        return self.start + (values - low) / (high - low) * (self.end - self.start)

    def ticks(self, labels: Any = ()) -> list[tuple[float, str]]:
        """(place, label) of the round numbers inside; of a few of the labels, where x counts those."""
        if labels:
            step = max(1, math.ceil(len(labels) / 12))
            return [(round(float(self(i)), 1), labels[i]) for i in range(0, len(labels), step)]
        numbers = log_ticks(self.low, self.high) if self.log else ticks(self.low, self.high)
        return [(round(float(self(v)), 1), short_number(v)) for v in numbers]


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between low and high: steps of 1, 2 or 5 times a power of ten.

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


def finite(line: Line, figure: Curves) -> np.ndarray:
    """Indices of the values that can be drawn: finite and, on a logarithmic axis, above 0."""
    x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
    drawn = np.isfinite(x) & np.isfinite(y)
    return np.flatnonzero(drawn & ((x > 0) | (not figure.x_log)) & ((y > 0) | (not figure.y_log)))


def limits(figure: Curves) -> tuple[float, float, float, float] | None:
    """The edges of a chart, (x low, x high, y low, y high), with a margin; None when there is nothing to draw."""
    x, y = [], []
    for line in figure.lines:
        drawn = finite(line, figure)
        x.append(np.asarray(line.x, dtype=float)[drawn])
        y += [np.asarray(values, dtype=float)[drawn] for values in (line.y, line.low, line.high) if values is not None]
    xs, ys = np.concatenate([*x, []]), np.concatenate([*y, []])
    ys = ys[np.isfinite(ys)]
    if not len(xs):
        return None
    levels = [value for _, value in figure.levels]
    low, high = min(ys.min(), *levels, ys.max()), max([ys.max(), *levels])
    if figure.y_max is not None:
        high = min(high, max(figure.y_max, low))
    if figure.y_log:
        low = max(low, min(y for y in ys if y > 0))
    else:
        low = min(low, 0.0) if figure.y_from_zero else low
        margin = 0.04 * (high - low)
        low, high = low if figure.y_from_zero and low == 0 else low - margin, high + margin
    return float(xs.min()), float(xs.max()), float(low), float(high)


def thin(x: np.ndarray, y: np.ndarray, columns: int, start: float, end: float) -> np.ndarray:
    """Indices of the points to keep, ascending: of each column of pixels the first, lowest, highest and last.

    That draws the same pixels as all points do, so a spike of one step never vanishes (M4: Jugel et al. 2014,
    "M4: a visualization-oriented time series data aggregation", VLDB 7(10)).

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
