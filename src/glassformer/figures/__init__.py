"""Level 4: six primitives and their renderers. A picture is a list of primitives.

figures = [gf.figures.Table(...), gf.figures.HeatMap(...)]
to_terminal(figures, console, options)    renderables of rich        `terminal.py`
to_text(figures)                          the same as plain text     `terminal.py`
to_html(figures, title)                   a page of its own          `html.py`
to_svg(figures, title)                    one SVG file               `svg.py`
to_json(figures)                          plain data                 `json.py`; `from_json` reads it
to_matplotlib(figures)                    a matplotlib figure        `matplotlib.py`
to_csv(figures)                           a line for each number     `save.py`
save(figures, path, title)                a file of these forms      `save.py`
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glassformer.figures.attention import cross_attention_figures
from glassformer.figures.colors import FULL_SURPRISE_BITS, ROLES, shade
from glassformer.figures.primitives import (
    Column,
    Curves,
    Figure,
    HeatMap,
    Line,
    Note,
    Points,
    Table,
    Tokens,
    format_value,
)
from glassformer.figures.save import save, to_csv
from glassformer.figures.text import bar, number, percent, visible

if TYPE_CHECKING:
    from glassformer.figures.html import html_fragment, to_html
    from glassformer.figures.json import from_json, to_json
    from glassformer.figures.matplotlib import to_matplotlib
    from glassformer.figures.svg import to_svg
    from glassformer.figures.terminal import to_terminal, to_text

_RENDERERS = {  # each with the module that holds it: rich, jinja2 and matplotlib are loaded when they are needed
    "to_terminal": "terminal",
    "to_text": "terminal",
    "to_html": "html",
    "html_fragment": "html",
    "to_svg": "svg",
    "to_json": "json",
    "from_json": "json",
    "to_matplotlib": "matplotlib",
}


def __getattr__(name: str) -> Any:
    if name not in _RENDERERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_RENDERERS[name]}"), name)


__all__ = [
    "FULL_SURPRISE_BITS",
    "ROLES",
    "Column",
    "Curves",
    "Figure",
    "HeatMap",
    "Line",
    "Note",
    "Points",
    "Table",
    "Tokens",
    "bar",
    "cross_attention_figures",
    "format_value",
    "from_json",
    "html_fragment",
    "number",
    "percent",
    "save",
    "shade",
    "to_csv",
    "to_html",
    "to_json",
    "to_matplotlib",
    "to_svg",
    "to_terminal",
    "to_text",
    "visible",
]
