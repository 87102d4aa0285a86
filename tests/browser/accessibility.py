"""axe-core's findings on a page, and whether it is wider than the screen."""

from __future__ import annotations

from typing import Any

from npm import package

WIDTHS = {390: "dark", 1440: "light"}
RUN = """async () => {
    const { violations } = await axe.run(document, { resultTypes: ["violations"] });
    return violations.filter(one => ["serious", "critical"].includes(one.impact))
        .flatMap(one => one.nodes.slice(0, 5).map(n => `${one.id}: ${n.target}: ${n.any[0]?.message ?? one.help}`));
}"""


def findings(tab: Any) -> list[str]:
    """Serious and critical ones in dark on a phone and in light on a wide screen; and what is wider than the screen in
    all four."""
    source = (package("axe-core") / "axe.min.js").read_text(encoding="utf-8")
    found = []
    for width in WIDTHS:
        tab.set_viewport_size({"width": width, "height": 900})
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme, reduced_motion="reduce")
            if scheme == WIDTHS[width]:
                if not tab.evaluate("typeof axe === 'object'"):
                    tab.evaluate(source)
                found += [f"{width} px, {scheme}: {line}" for line in tab.evaluate(RUN)]
            wide = tab.evaluate("document.documentElement.scrollWidth")
            if wide > width:
                found.append(f"{width} px, {scheme}: the page is {wide} px wide")
    return found
