"""Nothing is loaded yet: the page says how, plans and starts a run, pauses, stops and resumes it, opens its model."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from accessibility import findings
from actions import wait_for_state
from playwright.sync_api import expect
from served import listening
from test_training_routes import TINY

from glassformer.recipes.plan import plan
from glassformer.server.app import create_app, open_model
from glassformer.server.runs import Runs

MORE_THAN = "n => Number(document.querySelector('[data-source=\"run/steps\"]')?.dataset.value) > n"


@pytest.fixture
def url(tmp_path):
    def open_checkpoint(folder: str, name: str) -> Any:
        return open_model(folder, name, device="cpu", dtype="fp32")[name]

    app = create_app({}, runs=Runs([tmp_path]), open_checkpoint=open_checkpoint, train_in=tmp_path)
    with listening(app) as address:
        yield address


def set_up(tab: Any, steps: int) -> None:
    """The form, filled with the smallest of models."""
    tab.click("#new-run")
    expect(tab.locator("#plan td").first).to_be_visible()
    tab.click("#start-run .more-options summary")
    for key, value in {**TINY, "training.steps": steps}.items():
        tab.fill(f'#start-run [name="{key}"]', str(value))


def test_nothing_is_loaded_and_the_page_says_how(tab, url):
    tab.goto(url)
    expect(tab.locator("#train-panel")).to_be_visible()
    expect(tab.locator("#train-demo")).to_be_visible()
    assert findings(tab) == []
    tab.click("#new-run")
    shown = tab.locator("#plan td").nth(1)
    expect(shown).to_have_text(f"{plan('shakespeare-fast', probing=False).parameters:,}")  # the recipe as it is
    tab.fill('#start-run [name="model.n_layer"]', "3")
    expect(shown).to_have_text(f"{plan('shakespeare-fast', ['model.n_layer=3'], probing=False).parameters:,}")
    assert findings(tab) == []


def test_a_run_is_started_paused_stopped_and_resumed_from_the_page(tab, url):
    tab.goto(url)
    set_up(tab, 1_000_000)
    tab.click("#start-run button[type=submit]")
    expect(tab.locator("#run-title")).to_have_text("shakespeare-fast-1")
    step = tab.locator('[data-source="run/steps"]')
    tab.wait_for_function(MORE_THAN, arg=5)
    tab.click('[data-action="pause"]')
    tab.click('[data-action="proceed"]')
    seen = int(step.get_attribute("data-value"))
    tab.wait_for_function(MORE_THAN, arg=seen)
    tab.click('[data-action="stop"]')
    expect(tab.locator('[data-action="resume"]')).to_be_visible()
    assert tab.inner_text("#run-state").startswith("stopped")


def test_a_run_that_ends_gives_a_model_to_write_with(tab, url):
    tab.goto(url)
    set_up(tab, 3)
    tab.click("#start-run button[type=submit]")
    expect(tab.locator("#model")).to_have_value("shakespeare-fast-1")
    tab.click("#panels [data-panel=write]")
    wait_for_state(tab, "idle")
    tab.fill("#prompt", "To be")
    tab.click("#write")
    wait_for_state(tab, "done")
