"""Every way to write, and the tokens, by axe-core, in both themes, on a phone and on a wide screen."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from accessibility import findings
from actions import PROMPT, look, opened, wait_for_state, write, written
from playwright.sync_api import expect


def test_branches_and_their_comparison(tab, url):
    opened(tab, url, topK=5)
    written(tab, PROMPT, tokens=30)
    look(tab, 18)
    tab.locator("#distribution tbody button").nth(2).click()
    wait_for_state(tab, "done")
    tab.click('#branches [data-compare="1"]')
    expect(tab.locator("#comparison table")).to_be_visible()
    tab.set_viewport_size({"width": 390, "height": 900})
    assert findings(tab) == []


def test_a_chat(tab, url):
    opened(tab, url)
    tab.select_option("#model", "chat")
    wait_for_state(tab, "idle")
    tab.click("#modes label:has([value=chat])")
    for message in ("the dog", "over the fox"):
        write(tab, message, tokens=5)
        wait_for_state(tab, "done")
    tab.click("#turns [data-edit='0']")
    assert findings(tab) == []


def test_side_by_side(tab, url):
    tab.goto(f"{url}/#side-by-side")
    wait_for_state(tab, "idle")
    tab.fill("#side-tokens", "12")
    tab.click("#side-go")
    expect(tab.locator(".top-bars")).to_have_count(3)
    assert findings(tab) == []


def test_the_game(tab, url):
    tab.goto(f"{url}/#guess")
    wait_for_state(tab, "idle")
    tab.click("#guess-start")
    for letter in "ab":
        expect(tab.locator("#guess")).to_be_focused()
        tab.fill("#guess", letter)
        tab.keyboard.press("Enter")
    expect(tab.locator("#score svg")).to_be_visible()
    assert findings(tab) == []


def test_tokens(tab, url):
    tab.goto(f"{url}/#tokens")
    wait_for_state(tab, "idle")
    expect(tab.locator("#chips .chip").first).to_be_visible()
    tab.click("#compare-tokenizers")
    expect(tab.locator("#tokenizers table")).to_be_visible()
    assert findings(tab) == []
