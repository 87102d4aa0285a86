"""The six figures, as data: a view or a report is a list of these, and every renderer draws every one of them.

Note      a sentence, or a text        Curves    lines over steps, layers or values
Table     rows with bars and numbers   Points    vectors brought down to two or three dimensions
HeatMap   the numbers of a matrix      Tokens    a text whose tokens are coloured
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures.colors import ROLES
from glassformer.figures.text import number, percent, visible

COLUMN_KINDS = ("text", "token", "count", "number", "share", "signed")


@dataclass(frozen=True)
class Note:
    """A sentence or two; `verbatim`: a text whose spaces and lines are kept, such as one that a model wrote."""

    text: str
    title: str = ""
    verbatim: bool = False
    step: bool = False  # the figures up to the next such note are one step, which the page shows by itself


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Raises:
        UsageError: the kind or the role is unknown.
    """

    name: str
    kind: str = "text"  # text; token (spaces are made visible); count; number; share (0 to 1) and signed have bars
    digits: int = 3  # after the point
    role: str = "data"  # decides the colour of bars

    def __post_init__(self) -> None:
        if self.kind not in COLUMN_KINDS or self.role not in ROLES:
            raise UsageError(
                f"a column of kind {self.kind!r} and role {self.role!r} is unknown; kinds: "
                f"{', '.join(COLUMN_KINDS)}; roles: {', '.join(ROLES)}"
            )

    @property
    def is_number(self) -> bool:
        return self.kind not in ("text", "token")

    @property
    def has_bar(self) -> bool:
        return self.kind in ("share", "signed")


class Cell(NamedTuple):
    """A cell of a table: its text; its number, if it is one; the length of its bar, from -1 to 1, if it has one."""

    text: str
    value: float | None
    bar: float | None


@dataclass(frozen=True)
class Table:
    """Rows of values, one for each column; None is left empty.

    links: what a click on a cell of `rows` opens on the page: VIEW?option=value, or ?option=value for the same view.
    """

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    marked: frozenset[int] = frozenset()  # rows that stand out
    footer: Sequence[Sequence[Any]] = ()  # rows about the rows, such as "all others": no bars, the first cell is a text
    links: Sequence[Sequence[str | None]] = ()  # (rows, columns), or one for each row

    def scale(self, i: int) -> float:
        """The number that the longest bar of column i stands for."""
        values = [abs(float(row[i])) for row in self.rows if row[i] is not None]
        return max([*(v for v in values if math.isfinite(v)), 1e-12])

    def cells(self) -> list[list[Cell]]:
        """All cells, row by row; the footer comes last."""
        scales = [self.scale(i) if column.has_bar else 1.0 for i, column in enumerate(self.columns)]
        cells = []
        for r, row in enumerate((*self.rows, *self.footer)):
            line = []
            for i, (value, column) in enumerate(zip(row, self.columns, strict=True)):
                known = float(value) if column.is_number and value is not None else None
                bar = max(-1.0, min(1.0, known / scales[i])) if column.has_bar and known is not None else None
                in_footer = r >= len(self.rows)
                text = str(value) if in_footer and column.kind == "token" else format_value(value, column)
                line.append(Cell(text, known, None if in_footer else bar))
            cells.append(line)
        return cells


@dataclass(frozen=True)
class HeatMap:
    """A matrix (rows, columns) with a label for each row and column; NaN (masked, or no number) is struck out.

    Colours run from nothing at 0 to full at `highest`; of signed numbers to both sides of 0; of logarithmic ones from
    nothing just below the smallest number.
    """

    title: str
    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_axis: str = ""
    column_axis: str = ""
    role: str = "data"
    signed: bool = False
    highest: float | None = None  # drawn in full colour; None: the largest number
    digits: int = 2
    log: bool = False  # numbers of 0 and below are left empty
    compact: bool = False  # one of many beside each other, without labels
    line: str = ""  # of compact ones: those of the same line stand beside each other, behind its name
    links: Sequence[Sequence[str | None]] = ()  # (rows, columns), as of a table; of a compact one a single one

    @property
    def scale(self) -> float:
        """The number that is drawn in full colour."""
        if self.highest is not None:
            return self.highest
        seen = np.abs(self.values[np.isfinite(self.values)])
        return float(seen.max()) if seen.size and seen.max() > 0 else 1.0

    @property
    def lowest(self) -> float:
        """The number that the scale begins with."""
        if not self.log:
            return -self.scale if self.signed else 0.0
        seen = self.values[np.isfinite(self.values) & (self.values > 0)]
        return float(seen.min()) if seen.size else self.scale

    def shares(self) -> np.ndarray:
        """Every number as a share of the scale, -1 to 1, NaN where nothing is drawn; (rows, columns)."""
        values = np.asarray(self.values, dtype=float)
        if not self.log:
            with np.errstate(invalid="ignore"):
                return np.clip(values / self.scale, -1.0 if self.signed else 0.0, 1.0)
        values = np.where(values > 0, values, math.nan)
        if self.scale <= self.lowest:
            return np.where(np.isfinite(values), 1.0, math.nan)
        faintest = 0.06  # so that the smallest number differs from none
        span = np.log(values / self.lowest) / math.log(self.scale / self.lowest)
        return np.clip(faintest + (1 - faintest) * span, 0.0, 1.0)


@dataclass(frozen=True)
class Line:
    """A line of a chart: y over x, (N,) each; NaN is a gap."""

    name: str
    x: Sequence[float] | np.ndarray
    y: Sequence[float] | np.ndarray
    low: Sequence[float] | np.ndarray | None = None  # (N,) the edges of a band around the line, such as an interval
    high: Sequence[float] | np.ndarray | None = None
    color: int | None = None  # index of `LINES`; None: the place among the lines
    faint: bool = False  # drawn lightly: what another line smooths
    dots: bool = False  # every value is marked


@dataclass(frozen=True)
class Curves:
    """Lines over the same axis."""

    title: str
    lines: Sequence[Line]
    x_axis: str = ""
    y_axis: str = ""
    x_labels: Sequence[str] = ()  # of x = 0, 1, 2 and so on, where x is no number
    x_log: bool = False
    y_log: bool = False
    y_from_zero: bool = True
    y_max: float | None = None  # values above are drawn at the upper edge and counted
    levels: Sequence[tuple[str, float]] = ()  # horizontal lines to compare with
    events: Sequence[tuple[str, float]] = ()  # vertical lines, at an x
    compact: bool = False  # one of many below each other, lower

    def __post_init__(self) -> None:
        if not all(isinstance(line, Line) for line in self.lines):
            raise UsageError(
                "the lines of Curves are Line objects with an x of their own; for lines over the same x use "
                "Curves.over(title, x, {name: values})"
            )

    @classmethod
    def over(
        cls,
        title: str,
        x: Sequence[Any],
        lines: Mapping[str, Sequence[float]],
        x_axis: str = "",
        y_axis: str = "",
        **options: Any,
    ) -> Curves:
        """Lines that share their x, which are numbers or names; a shorter line ends earlier."""
        numbers = all(isinstance(place, int | float) for place in x)
        places = list(x) if numbers else list(range(len(x)))
        made = [Line(name, places[: len(values)], values) for name, values in lines.items()]
        return cls(title, made, x_axis, y_axis, x_labels=() if numbers else [str(name) for name in x], **options)


@dataclass(frozen=True)
class Points:
    """Labelled places (N, 2 or 3)."""

    title: str
    labels: Sequence[str]
    places: np.ndarray
    axes: Sequence[str] = ()


@dataclass(frozen=True)
class Tokens:
    """A text, token by token, each with a number or None."""

    title: str
    texts: Sequence[str]
    values: Sequence[float | None]
    unit: str = ""
    highest: float | None = None  # drawn in full colour; None: the largest number
    role: str = "value"
    digits: int = 1

    @property
    def scale(self) -> float:
        """The number that is drawn in full colour."""
        seen = [v for v in self.values if v is not None]
        return self.highest if self.highest is not None else max([*seen, 1e-12])


Figure = Note | Table | HeatMap | Curves | Points | Tokens


def format_value(value: Any, column: Column) -> str:
    """A value of a table as text.

    >>> format_value(0.1234, Column("p", "share")), format_value(1234, Column("n", "count"))
    ('12.3 %', '1,234')
    >>> format_value(-0.5, Column("x", "signed")), format_value(" a", Column("t", "token"))
    ('-0.500', '␣a')
    """
    if value is None or (column.is_number and value != value):
        return ""
    if column.kind == "share":
        return percent(float(value))
    if column.kind == "count":
        return f"{int(value):,}"
    if column.is_number:
        return number(float(value), column.digits)
    return visible(str(value)) if column.kind == "token" else str(value)
