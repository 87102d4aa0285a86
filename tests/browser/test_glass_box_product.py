"""The page as a product: one cursor, keyboard, both themes, every width (24), live training (22), offline (25).

The numbers are those of GLASS_BOX.md, the list of what the page must do.
"""

from __future__ import annotations

import csv
import io
import json
import re
import urllib.parse
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from accessibility import findings
from actions import wait_for_state, written
from playwright.sync_api import expect
from test_look_inside import TEXT, address, every_kind, on_screen, opened, own_view
from test_look_route import OPTIONS, OTHERS

from glassformer.figures import Curves, HeatMap, Table
from glassformer.inspection import look
from glassformer.views import VIEWS

__all__ = ["own_view"]  # a fixture
ATTENTION = address("attention", text=TEXT, layer=1, head=2)


def test_24_every_view_is_accessible_and_fits_every_width(tab, url):
    found = {}
    for view in sorted(VIEWS.keys() - OTHERS):
        opened(tab, url, address(view, **OPTIONS.get(view, {"text": TEXT})))
        found |= {view: lines} if (lines := findings(tab)) else {}
    assert not found


@pytest.mark.parametrize("panel", ["write", "train"])
def test_24_every_panel_is_accessible_and_fits_every_width(tab: Any, url, panel):
    tab.goto(f"{url}/#{panel}")
    if panel == "write":
        wait_for_state(tab, "idle")
        written(tab, TEXT, tokens=4)
        tab.click('#tokens [data-index="3"]')
        tab.wait_for_selector("#distribution [data-source]")
    assert findings(tab) == []


def saved(tab: Any, kind: str, folder: Path) -> Path:
    """The file that a button of the page gives."""
    with tab.expect_download() as download:
        tab.click(f"[data-save={kind}]")
    path = folder / download.value.suggested_filename
    download.value.save_as(path)
    return path


@pytest.mark.parametrize("view", ["attention", "everything"])
def test_25_a_view_saved_as_html_opens_from_a_file_with_identical_numbers(tab, url, own_view, tmp_path, view):
    opened(tab, url, ATTENTION if view == "attention" else address(view, text="a"))
    seen = on_screen(tab)
    assert len(seen) > 20
    path = saved(tab, "html", tmp_path)
    assert path.name == f"{view}.html"
    file = tab.context.new_page()
    requests: list[str] = []
    errors: list[str] = []
    file.on("request", lambda request: requests.append(request.url))
    file.on("console", lambda line: errors.append(line.text))
    file.on("pageerror", lambda error: errors.append(str(error)))
    file.goto(path.as_uri())
    again = file.eval_on_selector_all(
        "[data-source]", "all => all.map(one => [one.dataset.source, one.dataset.value ?? ''])"
    )
    curves = file.eval_on_selector_all(
        "g.curve[data-source]",
        "all => all.map(one => [one.dataset.source,"
        " [...one.querySelectorAll('polyline')].map(line => line.dataset.values).join(' ')])",
    )
    assert dict(again) | dict(curves) == seen
    assert requests == [path.as_uri()] and errors == []
    picture = file.locator("section.heat_map svg").first
    picture.focus()  # the pointer and the keys read out numbers there too
    assert file.locator("section.heat_map output").first.inner_text()


def test_25_look_html_is_the_same_drawing(tab, url, models, tmp_path):
    opened(tab, url, ATTENTION)
    seen = list(on_screen(tab).values())
    view = look("attention", *models["base"], TEXT, layer=1, head=2)
    path = tmp_path / "look.html"
    path.write_text(view.to_html(), encoding="utf-8")
    file = tab.context.new_page()
    file.goto(path.as_uri())
    assert file.eval_on_selector_all("[data-source]", "all => all.map(one => one.dataset.value ?? '')") == seen


def test_25_without_scripts_a_saved_page_still_shows_its_numbers(browser, models, tmp_path):
    path = tmp_path / "look.html"
    path.write_text(look("attention", *models["base"], TEXT, layer=1, head=2).to_html(), encoding="utf-8")
    context = browser.new_context(java_script_enabled=False)
    try:
        page = context.new_page()
        page.goto(path.as_uri())
        assert page.locator("svg [data-value]").count() > 100 and page.locator("td[data-value]").count() > 5
    finally:
        context.close()


def test_25_csv_holds_every_number(tab, url, own_view, tmp_path):
    opened(tab, url, address("everything", text="a"))
    rows = list(csv.DictReader(io.StringIO(saved(tab, "csv", tmp_path).read_text(encoding="utf-8"))))
    for i, figure in enumerate(every_kind()):
        own = [row for row in rows if row["figure"] == str(i)]
        values = [row["value"] for row in own]
        if isinstance(figure, HeatMap):
            assert [float(v) for v in values] == figure.values.flatten().tolist()
        if isinstance(figure, Table):
            assert values == ["" if v is None else str(v) for row in (*figure.rows, *figure.footer) for v in row]
        if isinstance(figure, Curves) and figure.title == "Lines":
            assert {row["row"] for row in own} == {"a", "b", "b, low", "b, high"} and values[:4] == [
                "1.0",
                "",
                "3.0",
                "0.5",
            ]
        assert own and own[0]["title"] == figure.title


def test_25_png_is_a_picture_of_the_figures(tab, url, tmp_path):
    image = pytest.importorskip("PIL.Image", reason="needs the extra images")
    opened(tab, url, ATTENTION)
    size = tab.locator("#figures").bounding_box()
    picture = image.open(saved(tab, "png", tmp_path))
    assert picture.width >= 2 * (size["width"] - 4) and picture.height >= 2 * (size["height"] - 4)
    colors = picture.convert("RGB").getcolors(1 << 24)
    assert len(colors) > 50  # text and shaded cells, not a blank sheet


def test_25_every_request_goes_to_the_server_itself(tab, url):
    for hash in ("#write", ATTENTION, address("components", words=["a", "c", "d"]), "#train"):
        tab.goto(f"{url}/{hash}")
        tab.wait_for_load_state("networkidle")
    hosts = {urllib.parse.urlsplit(each).netloc for each in tab.requests}
    assert hosts == {urllib.parse.urlsplit(url).netloc}
    policy = json.dumps(tab.request.get(url).headers)
    assert re.search(r"default-src 'none'.*connect-src 'self'", policy)


def test_24_views_that_do_not_apply_come_last_with_the_reason(tab, url):
    opened(tab, url, address("attention", "base", text=TEXT))
    tab.select_option("#model", "vectors")  # an encoder: no next token
    expect(tab.locator('.view-list [data-view="next"]')).to_have_class("unfit")
    expect(tab.locator('.view-list [data-view="next"] .small')).to_contain_text("does not generate text")
    fit = tab.eval_on_selector_all(
        "#look-panel .view-list a", "all => all.map(one => !one.classList.contains('unfit'))"
    )
    assert fit == sorted(fit, reverse=True) and len(fit) == len(VIEWS) and 8 < sum(fit) < len(fit)
    before = [each for each in tab.requests if "/look/next" in each]
    tab.click('.view-list [data-view="next"]')
    expect(tab.locator("#view-state")).to_contain_text("does not generate text")
    assert [each for each in tab.requests if "/look/next" in each] == before == []


def test_24_another_model_is_one_request(tab, url):
    opened(tab, url, address("surprise", "base", text=TEXT))
    asked = len([each for each in tab.requests if "/api/look/" in each])
    with tab.expect_response("**/api/look/surprise"):
        tab.select_option("#model", "chat")
    tab.wait_for_url("**model=chat**")
    with tab.expect_response("**/api/look/surprise"):  # and so is an address that names the model
        tab.goto(f"{url}/{address('surprise', 'base', text=TEXT)}")
    expect(tab.locator("#figures[aria-busy]")).to_have_count(0)
    expect(tab.locator("#model")).to_have_value("base")
    assert len([each for each in tab.requests if "/api/look/" in each]) == asked + 2
    assert asked == 1


def test_24_the_keyboard_alone_reaches_a_head_and_its_numbers(tab, url, models):
    opened(tab, url, address("attention", "base", text=TEXT))
    tab.locator("#option-text").focus()
    for _ in range(40):
        tab.keyboard.press("Tab")
        if tab.evaluate("document.activeElement.matches('#figures .scroll[tabindex]')"):
            break
    for _ in range(6):
        tab.keyboard.press("ArrowDown")
    name = tab.inner_text("tr.chosen td:first-child")
    tab.keyboard.press("Enter")
    layer, head = name.split(".")
    expect(tab.locator("#option-layer")).to_have_value(layer)
    expect(tab.locator("#option-head")).to_have_value(head)
    expect(tab.locator("#figures section.heat_map svg")).to_be_visible()
    tab.locator("#figures section.heat_map svg").focus()
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("ArrowDown")
    out = tab.locator("#figures section.heat_map output").first
    weights = look("attention", *models["base"], TEXT, layer=int(layer), head=int(head)).figures()[0].values
    assert float(out.get_attribute("data-value")) == weights[2, 0]


def test_24_the_page_is_there_before_the_server_s_answers(tab, url):
    tab.route("**/api/**", lambda route: None)  # none ever comes
    tab.goto(url)
    expect(tab.locator("#status-text")).to_have_text("connecting …")
    assert tab.locator("#panels a").count() >= 5 and tab.locator("#prompt").is_visible()
    assert tab.evaluate("performance.getEntriesByName('first-contentful-paint').length") == 1


def test_24_nothing_moves_by_itself_under_reduced_motion(tab, url):
    tab.emulate_media(reduced_motion="reduce")
    for hash in ("#write", address("attention", text=TEXT), "#train", "#tour/5"):
        tab.goto(f"{url}/{hash}")
        tab.wait_for_load_state("networkidle")
        assert tab.evaluate("document.getAnimations().filter(one => one.playState === 'running').length") == 0
