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
