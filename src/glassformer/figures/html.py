"""Figures as HTML, by the template `figures.html`; what is computed for it is here."""

from __future__ import annotations

from functools import lru_cache
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment

from glassformer.figures.primitives import (
    ROLES,
    TOKEN_STRENGTH,
    Curves,
    Figure,
    HeatMap,
    Points,
    Table,
    Tokens,
    negative_of,
    number,
    said,
    visible,
)
from glassformer.processors.tokenizers.alphabet import legible

WIDTH, HEIGHT = 640, 260  # of a drawing, user units
LINES = ("#346ec8", "#cd3e32", "#16968e", "#d6b212", "#7c5cc4", "#808080", "#d0762b", "#4a9a3f")
MOST_NUMBERS = 24  # columns of a heat map whose cells also have their number written
GROUND = "body { margin: 0 } @media (prefers-color-scheme: dark) { body { background: #15171a } }"


def page(figures: list[Figure], title: str) -> str:
    """A whole document."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{GROUND}</style></head><body>\n'
        f"{fragment(figures)}</body></html>\n"
    )


def fragment(figures: list[Figure]) -> str:
    """What a notebook takes."""
    return _template().render(figures=[(type(figure).__name__, figure) for figure in figures])


@lru_cache(maxsize=1)
def _template() -> Any:
    environment = Environment(autoescape=True, trim_blocks=True, finalize=_shown)
    for helper in (visible, cells, heat, scale, has_short_heads, tokens, curves, points):
        environment.globals[helper.__name__] = helper
    return environment.from_string(Path(__file__).with_name("figures.html").read_text(encoding="utf-8"))


def _shown(value: Any) -> Any:
    """Text as a page may hold it; markup and numbers as they are."""
    return legible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def cells(figure: Table, row: Any) -> list[dict[str, Any]]:
    """The cells of a row, with the bars that some of them have."""
    made = []
    for i, (value, column) in enumerate(zip(row, figure.columns, strict=True)):
        cell: dict[str, Any] = {"text": said(value, column)}
        if column.is_number and value is not None:
            cell["held"] = repr(float(value))
        if column.kind in ("share", "signed"):
            cell["bar"] = True
        if (share := figure.bar(row, i)) is not None:
            cell["colour"] = _rgb(negative_of(column.role) if share < 0 else ROLES[column.role])
            cell["share"] = round(100 * share if column.kind == "share" else 50 * abs(share), 1)
            if column.kind == "signed":  # from the middle, to the left or to the right
                cell["margin"] = round(50 + 50 * min(share, 0.0), 1)
        made.append(cell)
    return made


def scale(figure: HeatMap | Tokens) -> dict[str, Any]:
    """The legend of a figure's colours: a strip, and the numbers at its ends and, of signed ones, in its middle."""
    if isinstance(figure, Tokens):
        strongest, high = (
            _rgb(ROLES[figure.role], TOKEN_STRENGTH),
            f"{number(figure.scale, figure.digits)} {figure.unit}",
        )
    else:
        strongest, high = _rgb(ROLES[figure.role], 1.0), number(figure.scale)
        if figure.signed:
            weakest = _rgb(negative_of(figure.role), 1.0)
            return {"colours": f"{weakest}, transparent, {strongest}", "low": f"-{high}", "middle": "0", "high": high}
    return {"colours": f"transparent, {strongest}", "low": "0", "middle": "", "high": high}


def has_short_heads(figure: HeatMap) -> bool:
    """Whether the heads of the columns are as narrow as their cells, so that they need not stand on end."""
    return all(len(name) <= 2 for name in figure.columns)


def heat(figure: HeatMap, r: int) -> list[dict[str, Any] | None]:
    """The cells of a row; None where there is no number."""
    made: list[dict[str, Any] | None] = []
    for value in figure.values[r].tolist():
        if value != value:
            made.append(None)
            continue
        colour = negative_of(figure.role) if figure.signed and value < 0 else ROLES[figure.role]
        shown = f"{value:.{figure.digits}f}" if len(figure.columns) <= MOST_NUMBERS else ""
        made.append({"held": repr(value), "text": shown, "colour": _rgb(colour, abs(value) / figure.scale)})
    return made


def tokens(figure: Tokens) -> list[dict[str, Any]]:
    """Each token, with the colour of its number if it has one."""
    made = []
    for text, value in zip(figure.texts, figure.values, strict=True):
        token: dict[str, Any] = {"text": text.replace("\\n", "⏎\n")}
        if value is not None:
            colour = _rgb(ROLES[figure.role], TOKEN_STRENGTH * min(value / figure.scale, 1.0))
            token |= {"held": repr(float(value)), "colour": colour}
        made.append(token)
    return made


def curves(figure: Curves) -> dict[str, Any]:
    """Lines and ticks in user units."""
    finite = [v for line in figure.lines.values() for v in line if np.isfinite(v)]
    low, high = min([*finite, 0.0]), max([*finite, 1e-12])
    last = max(len(figure.x) - 1, 1)

    def across(k: int) -> float:
        return round(50 + (WIDTH - 70) * k / last, 1)

    def up(value: float) -> float:
        return round(HEIGHT - 30 - (HEIGHT - 50) * (value - low) / (high - low or 1), 1)

    lines = [
        {
            "name": name,
            "colour": LINES[i % len(LINES)],
            "points": " ".join(f"{across(k)},{up(v)}" for k, v in enumerate(line) if np.isfinite(v)),
            "held": " ".join(f"{v:.6g}" for v in line),
        }
        for i, (name, line) in enumerate(figure.lines.items())
    ]
    ticks = [{"x": 46, "y": up(v) + 4, "anchor": "end", "text": number(v, 2)} for v in (low, high)]
    for k in sorted({0, last // 2, last} & set(range(len(figure.x)))):
        ticks.append({"x": across(k), "y": HEIGHT - 12, "anchor": "middle", "text": str(figure.x[k])})
    return {"lines": lines, "ticks": ticks, "width": WIDTH, "height": HEIGHT}


def points(figure: Points) -> dict[str, Any]:
    """Places in user units; what is nearer, in the third dimension, is stronger."""
    places = np.asarray(figure.places, dtype=float)
    low, high = places.min(axis=0), places.max(axis=0)
    made = [
        {
            "label": label,
            "x": round(30 + (WIDTH - 120) * unit[0], 1),
            "y": round(20 + (HEIGHT + 60) * (1 - unit[1]), 1),
            "depth": round(0.35 + 0.65 * (unit[2] if len(unit) > 2 else 1.0), 2),
            "held": " ".join(f"{v:.6g}" for v in place),
        }
        for label, unit, place in zip(
            figure.labels, (places - low) / np.where(high > low, high - low, 1), places, strict=True
        )
    ]
    sides = zip(("across", "up", "near (stronger)"), figure.axes, strict=False)
    axes = " · ".join(f"{side}: {name}" for side, name in sides)
    return {"points": made, "axes": axes, "width": WIDTH, "height": HEIGHT + 100}


def _rgb(colour: tuple[int, int, int], share: float | None = None) -> str:
    red, green, blue = colour
    return f"rgb({red},{green},{blue})" if share is None else f"rgba({red},{green},{blue},{min(share, 1.0):.3f})"
