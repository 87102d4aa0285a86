"""Looking inside in a real browser: every view, every number on the screen against the tensors that it names."""

from __future__ import annotations

import json
import re
import urllib.parse
from typing import Any

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import wait_for_state, written
from playwright.sync_api import expect
from test_look_route import OPTIONS, OTHERS

from glassformer.figures import Column, Curves, HeatMap, Line, Note, Points, Table, Tokens
from glassformer.inspection import View, look
from glassformer.views import VIEWS, ViewEntry

TEXT = "the quick brown fox"


def address(view: str, model: str = "base", **options: Any) -> str:
    """The part of the address behind #, as the page writes it."""
    words = [("model", model)]
    for name, value in options.items():
        many = isinstance(value, list | tuple)
        for each in value if many else [value]:
            words.append((f"{name}[]" if many else name, ":".join(each) if isinstance(each, list) else str(each)))
    return f"#look/{view}?{urllib.parse.urlencode(words)}"


def opened(tab: Any, url: str, hash: str) -> None:
    tab.goto(f"{url}/{hash}")
    expect(tab.locator("#figures")).to_be_visible()
    expect(tab.locator("#figures[aria-busy]")).to_have_count(0)


def on_screen(tab: Any) -> dict[str, str]:
    pairs = tab.eval_on_selector_all(
        "#figures [data-source]", "all => all.map(one => [one.dataset.source, one.dataset.value ?? ''])"
    )
    curves = tab.eval_on_selector_all(
        "#figures g.curve[data-source]",
        "all => all.map(one => [one.dataset.source,"
        " [...one.querySelectorAll('polyline')].map(line => line.dataset.values).join(' ')])",
    )
    return dict(pairs) | dict(curves)


def true_numbers(figures: list[Any], view: str) -> dict[str, list[float]]:
    """Every number of a list of figures, by the names that the page gives them."""
    found: dict[str, list[float]] = {}
    for i, figure in enumerate(figures):
        path = f"{view}/{i}"
        if isinstance(figure, Table):
            rows = [*figure.rows, *figure.footer]
            for r, row in enumerate(rows):
                for c, (value, column) in enumerate(zip(row, figure.columns, strict=True)):
                    if column.is_number and value is not None and np.isfinite(float(value)):
                        found[f"{path}/{r}/{c}"] = [float(value)]
        elif isinstance(figure, HeatMap) and not figure.compact and figure.values.size <= 1024:
            for (r, c), value in np.ndenumerate(figure.values):
                if np.isfinite(value):
                    found[f"{path}/{r}/{c}"] = [float(value)]
        elif isinstance(figure, Tokens):
            found |= {f"{path}/{j}": [float(v)] for j, v in enumerate(figure.values) if v is not None}
        elif isinstance(figure, Curves):
            for j, line in enumerate(figure.lines):
                x, y = np.asarray(line.x, dtype=float), np.asarray(line.y, dtype=float)
                order = np.argsort(x, kind="stable")
                shown = order[np.isfinite(y[order]) & ((y[order] > 0) | (not figure.y_log))]
                found[f"{path}/{j}"] = y[shown].tolist()
    return found


def check(tab: Any, figures: list[Any], view: str) -> int:
    """Every number on the screen is the true one, and every true one is on the screen; how many they are."""
    seen, wanted = on_screen(tab), true_numbers(figures, view)
    numbers = {source: [float(v) for v in text.split()] for source, text in seen.items() if text}
    assert numbers.keys() == {source for source, values in wanted.items() if values}
    for source, values in numbers.items():
        assert values == pytest.approx(wanted[source], rel=1e-6, abs=1e-12), source
    return sum(map(len, numbers.values()))


def test_every_view_and_every_number(tab, url, models):
    total = 0
    for view in sorted(VIEWS.keys() - OTHERS):
        options = OPTIONS.get(view, {"text": TEXT})
        if "corpus" in options:  # a line of the form is a text, without its end
            options = {**options, "corpus": [text.strip() for text in options["corpus"]]}
        opened(tab, url, address(view, **options))
        figures = look(view, *models["base"], **options).figures()
        assert tab.locator("#figures .figure").count() == len(figures), view
        total += check(tab, figures, view)
        assert tab.inner_text("#view-title") == view
        assert tab.get_attribute(f'[data-view="{view}"]', "aria-current") == "page"
    assert total >= 1000
    hosts = {urllib.parse.urlsplit(address).netloc for address in tab.requests}
    assert hosts == {urllib.parse.urlsplit(url).netloc}


def every_kind() -> list[Any]:
    rng = np.random.default_rng(0)
    gap = np.array([1.0, np.nan, 3.0, 0.5])
    return [
        Note("<b>A note</b>\nof two lines", "Title <i>"),
        Note("  kept  spaces\n", verbatim=True),
        Table(
            "Rows",
            [Column("token", "token"), Column("n", "count"), Column("p", "share"), Column("s", "signed")],
            [[" a", 1234, 0.25, -0.5], ["\n", None, 0.75, 1.0]],
            frozenset([1]),
            [["others", 3, 0.1, None]],
        ),
        HeatMap("Signed", rng.normal(size=(3, 4)), list("abc"), list("wxyz"), "row", "column", "key", signed=True),
        HeatMap("Large", rng.random((60, 70)), list(map(str, range(60))), list(map(str, range(70)))),
        HeatMap("Small 1", rng.random((5, 5)), list("abcde"), list("abcde"), compact=True),
        HeatMap("Small 2", rng.random((5, 5)), list("abcde"), list("abcde"), compact=True),
        Curves(
            "Lines",
            [Line("a", np.arange(4), gap), Line("b", np.arange(4), gap * 2, low=gap, high=gap * 3, dots=True)],
            "x",
            "y",
            levels=[("ln V", 2.0)],
            events=[("resumed", 1.0)],
        ),
        Curves("Log", [Line("c", [1, 10, 100, 1000], [1e-3, 0.0, 10, 1e4])], "steps", x_log=True, y_log=True),
        Curves.over("Names", ["embedding", "block 0"], {"p": [0.1, 0.9]}),
        Points("Plane", list("abc"), rng.random((3, 2)), ("one", "two")),
        Points("Space", list("abcd"), rng.random((4, 3)), ("one", "two", "three")),
        Tokens("Text", ["To", " be", "\\n", "<b>"], [None, 1.0, 2.5, 0.0], "bits"),
    ]


@pytest.fixture
def own_view(monkeypatch):
    """A view that no file of the page knows, with a figure of every kind."""

    class Everything(View):
        def figures(self):
            return every_kind()

    def everything(model, text: str, *, loud: bool = False, top: int = 3):
        return Everything()

    monkeypatch.setitem(VIEWS, "everything", ViewEntry(everything, "A figure of every kind."))


def test_an_own_view_with_every_kind_of_figure_needs_no_line_of_javascript(tab, url, own_view):
    opened(tab, url, address("everything", text="a"))
    seen = on_screen(tab)
    figures = every_kind()
    wanted = {source for source, values in true_numbers(figures, "everything").items() if values}
    small = {f"everything/{i}" for i, f in enumerate(figures) if isinstance(f, HeatMap) and f.compact}
    assert seen.keys() == wanted | small
    assert tab.inner_text("#figures .note p") == "<b>A note</b>\nof two lines"
    assert tab.locator("#figures .beside .figure").count() == 2
    assert tab.locator("#figures .curve polyline").count() == 2 + 2 + 2 + 1  # gaps split a line; 0 has no logarithm
    assert tab.locator("#figures b, #figures i:not(.strip):not(.bar-track i)").count() == 0  # text stays text
    assert tab.locator("#option-loud").get_attribute("type") == "checkbox"
    assert tab.input_value("#option-top") == "3"


def test_the_pointer_and_the_arrow_keys_read_out_numbers(tab, url, own_view):
    opened(tab, url, address("everything", text="a"))
    signed = every_kind()[3]
    tab.hover('[data-source="everything/3/1/2"]')
    out = tab.locator('section:has([data-source="everything/3/1/2"]) output')
    assert out.inner_text() == f"row b · column y: {float(f'{signed.values[1, 2]:.5g}'):g}"
    assert float(out.get_attribute("data-value")) == signed.values[1, 2]
    tab.locator('section:has([data-source="everything/3/1/2"]) svg').focus()
    tab.keyboard.press("ArrowRight")
    assert out.get_attribute("data-source") == "everything/3/1/3"
    tab.keyboard.press("ArrowUp")
    assert out.get_attribute("data-source") == "everything/3/0/3"
    large = every_kind()[4].values  # on a canvas
    picture = tab.locator("section.heat_map:has(foreignObject) svg")
    picture.focus()
    tab.keyboard.press("ArrowDown")
    out = tab.locator("section.heat_map:has(foreignObject) output")
    r, c = map(int, out.get_attribute("data-source").split("/")[2:])
    assert float(out.get_attribute("data-value")) == large[r, c]
    space = tab.locator("section.points canvas").nth(1)
    space.focus()
    tab.keyboard.press("ArrowLeft")
    tab.keyboard.press("n")
    out = tab.locator("section.points output").nth(1)
    assert out.get_attribute("data-source") == "everything/11/0" and out.inner_text().startswith("a: one 0.")


def test_a_link_reopens_exactly_this_and_back_and_forward_work(tab, url):
    opened(tab, url, "#look/attention?model=base&text=the+fox")
    tab.locator("#figures .figure-table tbody tr", has_text=re.compile(r"^1\.2")).click()  # a head of the table
    expect(tab.locator("#option-layer")).to_have_value("1")
    expect(tab.locator("#option-head")).to_have_value("2")
    tab.wait_for_url("**layer=1&head=2")
    link, first = tab.url, on_screen(tab)
    tab.click('[data-view="surprise"]')
    expect(tab.locator("#view-title")).to_have_text("surprise")
    expect(tab.locator("#figures .tokens").first).to_be_visible()
    tab.go_back()
    expect(tab.locator("#option-head")).to_have_value("2")
    expect(tab.locator("#figures .heat_map").first).to_be_visible()
    assert on_screen(tab) == first
    tab.go_forward()
    expect(tab.locator("#view-title")).to_have_text("surprise")
    again = tab.context.new_page()
    opened(again, url, link.removeprefix(f"{url}/"))
    assert on_screen(again) == first


def test_views_are_about_the_text_that_was_written(tab, url):
    tab.goto(url)
    wait_for_state(tab, "idle")
    for name, value in {"temperature": 1, "topK": 0, "topP": 1, "minP": 0}.items():
        tab.fill(f"#{name}-number", str(value))
    written(tab, TEXT, tokens=3, seed=5)
    text = "".join(tab.locator("#tokens [data-id]").all_inner_texts())
    tab.click("#panels [data-panel=look]")
    tab.click('[data-view="surprise"]')
    expect(tab.locator("#option-text")).to_have_value(text)
    expect(tab.locator("#figures")).to_be_visible()
    tab.click("#panels [data-panel=write]")
    expect(tab.locator("#tokens")).to_be_visible()
    assert "".join(tab.locator("#tokens [data-id]").all_inner_texts()) == text


def test_a_mistake_is_a_line_and_the_form_stays(tab, url):
    opened(tab, url, "#look/lens?model=base&text=the+fox")
    tab.click(".more-options summary")
    tab.fill("#option-pin", "quick")
    tab.click("#view-form button[type=submit]")
    expect(tab.locator("#view-state")).to_contain_text("pin='quick' is 5 tokens")
    assert tab.locator("#figures").is_hidden() and tab.input_value("#option-text") == "the fox"
    tab.fill("#option-pin", "q")
    tab.click("#view-form button[type=submit]")
    expect(tab.locator("#figures")).to_be_visible()
    (error,) = tab.errors  # the browser's own line about the refused request
    assert "400" in error
    tab.errors.clear()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_cut_off_on_a_phone(browser, url, own_view, scheme):
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    try:
        opened(page, url, address("everything", text="a"))
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    finally:
        context.close()


def test_the_examples_of_all_views_are_options_of_theirs(tab, url):
    tab.goto(f"{url}/#look")
    expect(tab.locator("#look-panel .view-list a")).to_have_count(len(VIEWS))
    listed = tab.evaluate("fetch('/api/views').then(answer => answer.json())")["views"]
    for view in listed:
        assert view["example"].keys() <= view["options"]["properties"].keys(), view["name"]
        assert json.dumps(view["example"])


def test_a_picture_is_chosen_and_looked_into(tab, tmp_path):
    pytest.importorskip("sklearn", reason="needs the extra tables")
    from PIL import Image
    from served import served_folder

    from glassformer.inspection.look import open_subject, show
    from glassformer.recipes import train

    small = ["model.n_layer=1", "model.n_embd=16", "model.n_head=2", "training.steps=2", "training.eval_every=0"]
    train("digits", small, out=tmp_path / "digits")
    picture = tmp_path / "seven.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (8, 8), dtype=np.uint8)).save(picture)
    with served_folder(tmp_path / "digits") as url:
        tab.goto(f"{url}/#look/residual")
        expect(tab.locator("#status-text")).to_have_text("This model continues no text: look inside.")
        expect(tab.locator("#view-title")).to_have_text("residual")
        expect(tab.locator("#view-file")).to_be_visible()
        assert tab.locator("#option-text").is_hidden() and tab.locator("#figures").is_hidden()
        tab.click("#view-form button[type=submit]")
        expect(tab.locator("#view-state")).to_have_text("choose a file")
        tab.set_input_files("#view-file", picture)
        expect(tab.locator("#figures")).to_be_visible()
        expect(tab.locator("canvas.preview")).to_be_visible()
        figures = show("residual", open_subject(str(tmp_path / "digits")), {"text": str(picture)}).figures()
        assert check(tab, figures, "residual") > 40
        tab.click('[data-view="attention"]')  # the file stays chosen
        expect(tab.locator("#figures .figure-table")).to_be_visible()
        expect(tab.locator("#view-title")).to_have_text("attention")
