"""The tour: every step on the numbers of the loaded model, widgets that compute, the address, the keyboard."""

from __future__ import annotations

import math
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from accessibility import findings
from playwright.sync_api import expect
from test_look_inside import check

from glassformer.inspection import look

STEPS = 19
TEXT = "the quick brown fox"


def opened(tab: Any, url: str, step: int) -> None:
    tab.goto(f"{url}/#tour/{step}")
    expect(tab.locator("#tour-place")).to_have_text(f"{step} of {STEPS}")
    expect(tab.locator("#tour-figures[aria-busy]")).to_have_count(0)


def number(tab: Any, source: str) -> float:
    return float(tab.locator(f'[data-source="{source}"]').get_attribute("data-value"))


def test_every_step_shows_live_numbers_of_the_model_to_its_end(tab, url):
    opened(tab, url, 1)
    tab.fill("#tour-text", TEXT)
    tab.keyboard.press("Enter")
    seen = {}
    for step in range(1, STEPS + 1):
        expect(tab.locator("#tour-place")).to_have_text(f"{step} of {STEPS}")
        expect(tab.locator("#tour-figures [data-source]").first).to_be_attached()
        expect(tab.locator("#tour-figures[aria-busy]")).to_have_count(0)
        seen[tab.inner_text("#tour-title")] = tab.locator("#tour-figures [data-value]").count()
        assert tab.locator(".tour [role=alert]").inner_text() == ""
        if step < STEPS:
            tab.click(".tour button.primary")
    assert len(seen) == STEPS and min(seen.values()) >= 1
    assert tab.locator(".tour button.primary").is_disabled()
    tab.go_back()
    expect(tab.locator("#tour-place")).to_have_text(f"{STEPS - 1} of {STEPS}")


def test_a_step_has_the_numbers_of_its_view_and_leads_to_it(tab, url, models):
    opened(tab, url, 18)
    tab.fill("#tour-text", TEXT)
    tab.keyboard.press("Enter")
    expect(tab.locator('#tour-figures [data-source="surprise/0/4"]')).to_be_attached()
    figures = look("surprise", *models["base"], TEXT).figures()
    shown = tab.locator("#tour-figures").evaluate("one => one.id = 'figures'")  # what `check` reads
    assert shown == "figures" and check(tab, figures, "surprise") > 15
    tab.click(".tour a.small")
    expect(tab.locator("#view-title")).to_have_text("surprise")
    expect(tab.locator("#option-text")).to_have_value(TEXT)


def test_the_widgets_compute(tab, url):
    opened(tab, url, 3)
    before = number(tab, "widget/loss")
    tab.click(".widget button")
    best = number(tab, "widget/loss")
    assert best < before / 4
    tab.locator("#widget-slope").press("ArrowRight")
    assert number(tab, "widget/loss") > best
    opened(tab, url, 5)
    assert number(tab, "widget/dot") == pytest.approx(0.8 * math.cos(math.radians(65)))
    tab.locator("#widget-turn-b").fill("125")
    assert number(tab, "widget/dot") == pytest.approx(0, abs=1e-12)
    opened(tab, url, 9)
    tab.locator("#widget-heat").fill("2")
    shares = [number(tab, f"widget/softmax/{i}") for i in range(4)]
    powers = [math.exp(v / 2) for v in (2, 1, 0, -1)]
    assert shares == pytest.approx([p / sum(powers) for p in powers]) and sum(shares) == pytest.approx(1)
    opened(tab, url, 17)
    assert number(tab, "widget/gpt3/together") == 175_181_291_520
    tab.locator("#widget-layers").fill("48")
    assert number(tab, "widget/gpt3/Key") == 128 * 12_288 * 96 * 48


@pytest.mark.parametrize("step", [1, 3, 5, 9, 17])
def test_the_tour_is_accessible_and_fits_every_width(tab, url, step):
    opened(tab, url, step)
    assert findings(tab) == []
    tab.locator("#tour-title").focus()
    tab.keyboard.press("PageDown")
    expect(tab.locator("#tour-place")).to_have_text(f"{step + 1} of {STEPS}")
