"""Views in a notebook's cell: drawn and read out in the browser, with no network and beside each other."""

from __future__ import annotations

import pytest

pytest.importorskip("playwright", reason="needs the package playwright")

from glassformer.inspection import look

CELLS = """async cells => {  // as JupyterLab shows an output: markup first, then each script anew
    for (const html of cells) {
        const cell = document.createElement("div");
        cell.className = "notebook-output";
        cell.innerHTML = html;
        document.body.append(cell);
        for (const old of cell.querySelectorAll("script")) {
            const script = document.createElement("script");
            for (const { name, value } of old.attributes) script.setAttribute(name, value);
            script.textContent = old.textContent;
            old.replaceWith(script);
        }
    }
}"""


def test_each_cell_answers_the_pointer_and_needs_no_network(tab, models):
    model, tokenizer = models["base"]
    attention = look("attention", model, tokenizer, "the fox", layer=1, head=2)
    points = look("components", model, tokenizer, words=["a", "c", "d", "e"])
    tab.context.set_offline(True)
    tab.set_content("<style>.figure, .scroll { display: none } table { color: red }</style>")  # of the notebook itself
    tab.evaluate(CELLS, [view._repr_html_() for view in (attention, points, attention)])
    cells = tab.locator(".notebook-output")
    assert cells.count() == 3 and tab.locator(".gf-figures[data-drawn]").count() == 3
    for n in (0, 2):
        cells.nth(n).locator("svg rect[data-value]").first.hover()
        out = cells.nth(n).locator("output").first
        assert out.inner_text() == "queries t · keys t: 1" and float(out.get_attribute("data-value")) == 1
    shown = (
        cells.nth(0).locator("svg rect[data-value]").evaluate_all("all => all.map(one => Number(one.dataset.value))")
    )
    seen = attention.figures()[0].values
    assert shown == seen[seen == seen].tolist()
    turned = cells.nth(1).locator("canvas")
    before = turned.evaluate("canvas => canvas.toDataURL()")
    turned.focus()
    tab.keyboard.press("ArrowLeft")
    assert turned.evaluate("canvas => canvas.toDataURL()") != before
    tab.keyboard.press("n")
    assert cells.nth(1).locator("output").inner_text().startswith("a:")
    assert tab.requests == []
