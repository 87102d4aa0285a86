"""Figures that answer the pointer and the keys, in a saved page or a notebook's cell.

They are drawn by the modules in `web/`, which draw them on the server's page too. Here the modules are one script
beside the numbers: no request, no file. Without JavaScript the drawing of `html.py` stays.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from jinja2.utils import htmlsafe_json_dumps
from markupsafe import Markup

from glassformer.errors import GlassformerError
from glassformer.figures.json import to_json
from glassformer.figures.primitives import Figure

WEB = Path(__file__).with_name("web")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
"""The Content-Security-Policy of a saved page: what is in it runs, and nothing is fetched."""

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./([\w.]+)";$', re.MULTILINE)
_EXPORT = re.compile(r"^export (?=(?:async )?function\*? (\w+)|(?:const|let|class) (\w+))", re.MULTILINE)
_DRAW = """
for (const root of document.querySelectorAll(".gf-figures:not([data-drawn])")) {
  const { path, figures } = JSON.parse(root.querySelector("script").textContent);
  const list = modules["numbers.js"].element("div", { class: "figures" });
  list.append(modules["figures.js"].drawFigures(figures, path));
  root.dataset.drawn = "";
  root.replaceChildren();
  root.attachShadow({ mode: "open" }).append(modules["numbers.js"].element("style", {}, style), list);
}
"""


def interactive(figures: Sequence[Figure], path: str, fallback: Markup) -> Markup:
    """A part of a page.

    Args:
        path: what `data-source` of every number begins with.
        fallback: what is seen until the script has run.
    """
    data = htmlsafe_json_dumps({"path": path, "figures": to_json(figures)}, allow_nan=False)
    return Markup(
        '<div class="gf-figures">{}<script type="application/json">{}</script></div>\n<script>{}</script>'
    ).format(fallback, data, script())


@lru_cache(maxsize=1)
def script() -> Markup:
    """What draws every figure that is not drawn yet, each in a shadow tree: styles of the page around it do not reach
    in, and its own do not reach out."""
    sheets = "\n".join((WEB / name).read_text(encoding="utf-8") for name in ("theme.css", "figures.css"))
    return Markup("(() => {{\nconst modules = {{}};\n{}\nconst style = {};{}}})();").format(
        Markup(bundle()), htmlsafe_json_dumps(sheets), Markup(_DRAW)
    )


def bundle(entry: str = "figures.js") -> str:
    """A module of `web/` and all that it imports, each as a function's scope in `modules`.

    Raises:
        GlassformerError: a module is written in a form that this does not read.
    """
    made: dict[str, str] = {}

    def add(name: str) -> None:
        text = (WEB / name).read_text(encoding="utf-8")
        for _, other in _IMPORT.findall(text):
            if other not in made:
                add(other)
        exported = ", ".join(a or b for a, b in _EXPORT.findall(text))
        text = _IMPORT.sub(lambda found: f'const {{{found[1].replace(" as ", ": ")}}} = modules["{found[2]}"];', text)
        text = _EXPORT.sub("", text)
        if re.search(r"^(import|export)\b", text, re.MULTILINE) or "</" in text:
            raise GlassformerError(f"{name}: only `import {{ a }} from` and `export function, const, class`, and no </")
        made[name] = f'modules["{name}"] = (() => {{\n{text}\nreturn {{ {exported} }};\n}})();'

    add(entry)
    return "\n".join(made.values())
