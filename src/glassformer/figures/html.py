"""Figures as HTML: a page of its own, or a part of one such as a notebook's cell.

It needs nothing from elsewhere. Scripts read out the number under the pointer: that of `interactive.py`, and of a
report a few lines of its own. Every text passes through the template engine's escaping.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment
from markupsafe import Markup

from glassformer.figures import svg
from glassformer.figures.colors import TOKEN_STRENGTH, css, role_color
from glassformer.figures.interactive import POLICY, interactive
from glassformer.figures.json import to_json
from glassformer.figures.primitives import Column, Curves, Figure, HeatMap, Tokens
from glassformer.figures.text import number
from glassformer.processors.tokenizers.alphabet import legible


def to_html(figures: Sequence[Figure], title: str, links: Mapping[str, str] | None = None) -> str:
    """A whole page, which may fetch nothing (Content-Security-Policy).

    Args:
        links: to other pages, above the figures: the text of each, and where it leads.
    """
    body = interactive(figures, title, html_fragment(figures, with_style=False))
    return _template().module.page(title, style(), body, links, POLICY)  # type: ignore[no-any-return]


def html_fragment(figures: Sequence[Figure], *, with_style: bool = True, readout: bool = False) -> Markup:
    """Figures as a part of a page.

    Args:
        with_style: the style sheet comes first; without it the page has to hold `style()`.
        readout: pictures carry their numbers for `script()`, which the page has to hold.
    """
    draw, parts = _template().module.figure, []
    for line, group in itertools.groupby(figures, key=lambda figure: getattr(figure, "line", "")):
        drawn = Markup("").join(draw(figure, type(figure).__name__, readout) for figure in group)
        label = Markup('<div class="line"><span class="dim">{}</span>{}</div>').format(line, drawn)
        parts.append(label if line else drawn)
    head = Markup("<style>{}</style>").format(style()) if with_style else Markup("")
    return head + Markup('<div class="gf">\n{}</div>').format(Markup("").join(parts))


@lru_cache(maxsize=1)
def style() -> Markup:
    """The style sheet of all figures."""
    sheet = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    return Markup(f"{svg.style()}\n{sheet.strip()}")


@lru_cache(maxsize=1)
def script() -> Markup:
    """What reads out the number under the pointer."""
    return Markup(Path(__file__).with_name("readout.js").read_text(encoding="utf-8"))


@lru_cache(maxsize=1)
def _template() -> Any:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_legible)
    helpers = (drawing, bar, token, strip, number, to_json)
    environment.globals |= {helper.__name__: helper for helper in helpers}
    return environment.from_string(Path(__file__).with_name("figures.html").read_text(encoding="utf-8"))


def _legible(value: Any) -> Any:
    """Text as a page may hold it; markup and numbers as they are."""
    return legible(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def drawing(figure: Figure, readout: bool) -> Markup:
    """A chart, a heat map or points as SVG."""
    drawn = svg.draw(figure, titles=not readout)
    place = f' class="{type(figure).__name__.lower()}"'
    if readout and isinstance(figure, HeatMap | Curves) and drawn.frame[2] > 0:
        drawn = drawn._replace(markup=f'{drawn.markup}<path class="cursor" d=""/>')
        place += f' tabindex="0" data-frame="{" ".join(f"{edge:.1f}" for edge in drawn.frame)}"'
    return Markup(drawn.svg(figure.title, place))


def bar(share: float, column: Column) -> dict[str, Any]:
    """Colour, length and margin of a bar; of a signed one from the middle, to the left or to the right."""
    color = css(role_color(column.role, share))
    if column.kind == "share":
        return {"color": color, "width": round(100 * share, 1)}
    return {"color": color, "width": round(50 * abs(share), 1), "margin": round(50 + 50 * min(share, 0.0), 1)}


def strip(figure: Tokens, share: float) -> str:
    """A colour of the legend."""
    return css(role_color(figure.role, 1), TOKEN_STRENGTH * share)


def token(figure: Tokens, i: int) -> dict[str, Any]:
    """A token with its colour, if it has a number."""
    text, value = figure.texts[i].replace("\\n", "⏎\n"), figure.values[i]
    if value is None:
        return {"text": text}
    color = css(role_color(figure.role, 1), TOKEN_STRENGTH * min(value / figure.scale, 1.0))
    return {"text": text, "value": repr(float(value)), "color": color}
