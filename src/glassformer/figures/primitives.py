"""What can be shown of a model, as data: a view is a list of these, and terminal, page and plot each know how to draw
every one of them.

    Note      a sentence                       Curves    lines over layers, tokens or values
    Table     rows with bars and numbers       Points    vectors brought down to three dimensions
    HeatMap   numbers of a matrix              Tokens    a text whose tokens are coloured

Colours are the lectures' (3Blue1Brown, Deep Learning, chapters 5 to 7): weights blue and red, data grey, queries
yellow, keys teal, values red.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassformer.errors import UsageError

ROLES = {
    "data": (128, 128, 128),
    "query": (214, 178, 18),
    "key": (22, 150, 142),
    "value": (205, 62, 50),
    "weights": (52, 110, 200),
    "share": (52, 110, 200),
}
"""What a number is, and the colour that it is drawn in, as red, green and blue."""

NEGATIVE = (205, 62, 50)  # of signed numbers; positive ones have their role's colour

TOKEN_STRENGTH = 0.85
"""Of the colour behind a token's letters, at most, so that they can be read."""

STRONG = 10.0
"""Bits of surprise that are drawn in full colour."""

KINDS = ("text", "token", "count", "number", "share", "signed")


@dataclass(frozen=True)
class Column:
    """A column of a table.

    kind: `text`; `token` (shown with its spaces visible); `count` (whole numbers); `number`; `share` (0 to 1, as per
        cent with a bar); `signed` (with a bar to the left or the right).
    """

    name: str
    kind: str = "text"
    digits: int = 3
    role: str = "data"

    def __post_init__(self) -> None:
        if self.kind not in KINDS or self.role not in ROLES:
            raise UsageError(f"a column of kind {self.kind!r} and role {self.role!r} is unknown")

    @property
    def is_number(self) -> bool:
        return self.kind not in ("text", "token")


class Remark(str):
    """A cell that is no token in a column of tokens, such as "all others"; a row that begins with one has no bars."""


@dataclass(frozen=True)
class Note:
    """A sentence or two."""

    text: str


@dataclass(frozen=True)
class Table:
    """Rows of values, one for each column; None is left empty."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Any]]
    marked: frozenset[int] = frozenset()  # rows that stand out

    def scale(self, i: int) -> float:
        """What the longest bar of column i stands for."""
        if not self.columns[i].is_number:
            return 1.0
        values = [row[i] for row in self.rows if row[i] is not None and not isinstance(row[0], Remark)]
        return max([*(abs(float(v)) for v in values if np.isfinite(v)), 1e-12])

    def bar(self, row: Sequence[Any], i: int) -> float | None:
        """How long the bar of a cell is, from -1 to 1; None where there is none."""
        if self.columns[i].kind not in ("share", "signed") or row[i] is None or isinstance(row[0], Remark):
            return None
        return max(-1.0, min(1.0, float(row[i]) / self.scale(i)))


@dataclass(frozen=True)
class HeatMap:
    """A matrix (rows, columns) with a label for each row and column; NaN is left empty.

    signed: numbers may be negative, and nothing is the middle of the scale. highest: the end of the scale; by default
    the largest number there is.
    """

    title: str
    values: np.ndarray
    rows: Sequence[str]
    columns: Sequence[str]
    row_axis: str = ""
    column_axis: str = ""
    role: str = "data"
    signed: bool = False
    highest: float | None = None
    digits: int = 2

    @property
    def scale(self) -> float:
        """The number that is drawn in full colour."""
        if self.highest is not None:
            return self.highest
        seen = np.abs(self.values[np.isfinite(self.values)])
        return float(seen.max()) if seen.size and seen.max() > 0 else 1.0


@dataclass(frozen=True)
class Curves:
    """Lines over the same places; NaN is a gap."""

    title: str
    x: Sequence[Any]
    lines: dict[str, Sequence[float]]
    x_axis: str = ""
    y_axis: str = ""


@dataclass(frozen=True)
class Points:
    """Labelled places (N, 2 or 3)."""

    title: str
    labels: Sequence[str]
    places: np.ndarray
    axes: Sequence[str] = ()


@dataclass(frozen=True)
class Tokens:
    """A text, token by token, each with a number; None: no number. highest: what is drawn in full colour."""

    title: str
    texts: Sequence[str]
    values: Sequence[float | None]
    unit: str = ""
    highest: float | None = None
    role: str = "value"
    digits: int = 1

    @property
    def scale(self) -> float:
        seen = [v for v in self.values if v is not None]
        return self.highest if self.highest is not None else max([*seen, 1e-12])


Figure = Note | Table | HeatMap | Curves | Points | Tokens


def negative_of(role: str) -> tuple[int, int, int]:
    """The colour of a role's negative numbers: red, and blue where red is the colour of the positive ones.

    >>> negative_of("key") == NEGATIVE, negative_of("value") == NEGATIVE
    (True, False)
    """
    return ROLES["weights"] if ROLES[role] == NEGATIVE else NEGATIVE


def shade(figure_role: str, share: float, *, negative: bool = False, ground: int = 255) -> tuple[int, int, int]:
    """The colour of a number that is `share` (0 to 1) of the scale, mixed with the ground it stands on (255: white)."""
    full = negative_of(figure_role) if negative else ROLES[figure_role]
    share = min(max(share, 0.0), 1.0)
    return tuple(round(ground + (c - ground) * share) for c in full)  # type: ignore[return-value]


def said(value: Any, column: Column) -> str:
    """A value of a table as text.

    >>> said(0.1234, Column("p", "share")), said(1234, Column("n", "count")), said(-0.5, Column("x", "signed"))
    ('12.3 %', '1,234', '-0.500')
    """
    if value is None or (column.is_number and value != value):
        return ""
    if column.kind == "share":
        return percent(float(value))
    if column.kind == "count":
        return f"{int(value):,}"
    if column.kind in ("number", "signed"):
        return number(float(value), column.digits)
    return visible(str(value)) if column.kind == "token" and not isinstance(value, Remark) else str(value)


def percent(share: float) -> str:
    """
    >>> percent(0.5), percent(0.00012), percent(1e-9), percent(0.0)
    ('50.0 %', '0.012 %', '1e-07 %', '0 %')
    """
    if share == 0:
        return "0 %"
    if share >= 0.001:
        return f"{100 * share:.1f} %"
    return f"{100 * share:.2g} %"


def number(value: float, digits: int = 3) -> str:
    """A number with so many digits behind the point, or in powers of ten where that would show nothing of it.

    >>> number(3.14159), number(0.00001), number(123456.0), number(float("-inf")), number(0.0)
    ('3.142', '1.00e-05', '1.23e+05', '-inf', '0.000')
    """
    if value != 0 and abs(value) < float("inf") and not 10.0**-digits <= abs(value) < 100_000:
        return f"{value:.2e}"
    return f"{value:.{digits}f}"


def bar(fraction: float, width: int) -> str:
    """A bar in eighths of a character.

    >>> bar(0.5, 3), bar(0.0, 3)
    ('█▌', '')
    """
    full, rest = divmod(round(min(max(fraction, 0.0), 1.0) * width * 8), 8)
    return "█" * full + ("▏▎▍▌▋▊▉"[rest - 1] if rest else "")


def visible(token: str, width: int | None = None) -> str:
    """A token as something to see: a space as ␣, one that does not break or has another width as ⍽ (its sign in ISO
    9995-7), cut to `width` characters.

    >>> visible(" the"), visible("oui\xa0!"), visible("understanding", 6)
    ('␣the', 'oui⍽!', 'under…')
    """
    token = "".join("␣" if c == " " else "⍽" if unicodedata.category(c) == "Zs" else c for c in token)
    return token if width is None or len(token) <= width else token[: width - 1] + "…"


__all__ = [
    "KINDS",
    "NEGATIVE",
    "ROLES",
    "STRONG",
    "TOKEN_STRENGTH",
    "Column",
    "Curves",
    "Figure",
    "HeatMap",
    "Note",
    "Points",
    "Remark",
    "Table",
    "Tokens",
    "bar",
    "negative_of",
    "number",
    "percent",
    "said",
    "shade",
    "visible",
]
