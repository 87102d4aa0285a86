"""The glass box, behaviour 23: one slider over checkpoints drives every view and the text that the model writes."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import OFF, wait_for_state, written
from playwright.sync_api import expect
from resolving import TINY
from served import pieces_of, running
from test_glass_box_layers import column
from test_served_runs import STEPS, open_checkpoint

import glassformer as gf
from glassformer.inspection import look
from glassformer.models import Decoder
from glassformer.recipes import train
from glassformer.server.runs import Runs

TEXT = "the the"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run with checkpoints at 2, 4, ... 10, and the untrained model as step 0."""
    from play import PLAY

    runs = tmp_path_factory.mktemp("runs")
    (runs / "play.txt").write_text(PLAY, encoding="utf-8")
    train(None, [*TINY, *STEPS], data=str(runs / "play.txt"), out=runs / "one")
    model, tokenizer = gf.load(runs / "one")
    torch.manual_seed(0)
    gf.save(runs / "one" / "checkpoints" / "step-000000" / "model", Decoder(model.config), tokenizer)
    return runs


@pytest.fixture(scope="module")
def url(folder):
    with running({"one": tuple(gf.load(folder / "one"))}, runs=Runs([folder]), open_checkpoint=open_checkpoint) as at:
        yield at


def test_23_one_slider_of_checkpoints_drives_every_view_and_the_text(tab, url, folder):
    def at(step: int):
        return gf.load(folder / "one" / "checkpoints" / f"step-{step:06}")

    def first_numbers(view: str, step: int, **options) -> list[float]:
        figures = look(view, *at(step), **options).figures()
        table = next(figure for figure in figures if hasattr(figure, "cells"))
        return [float(cell.value) for row in table.cells() for cell in row if cell.value is not None]

    tab.goto(url)
    wait_for_state(tab, "idle")
    for name, value in OFF.items():
        tab.fill(f"#{name}-number", str(value))
    slider = tab.locator("#checkpoint")
    expect(slider).to_be_visible()
    slider.focus()
    for key, step in (("Home", 0), ("ArrowRight", 2)):
        tab.keyboard.press(key)
        expect(tab.locator("#checkpoint-shown")).to_have_text(f"step {step}")
        wait_for_state(tab, "idle" if step == 0 else "done")
        ids = written(tab, TEXT, tokens=4, seed=3)
        pair = at(step)
        n = len(pair[1].encode(TEXT))
        assert ids[n:] == [piece.token for piece in pieces_of(pair, TEXT, 4, seed=3)]
        slider.focus()
    views = {
        "lens": {"text": TEXT},
        "residual": {"text": TEXT},
        "attention": {"text": TEXT},
        "ablation": {"text": TEXT},
    }
    views |= {"parameters": {}, "neighbours": {"word": "t"}, "tensors": {"pattern": "blocks.0.*"}}
    for view, options in views.items():
        query = "&".join(f"{name}={value.replace(' ', '+')}" for name, value in options.items())
        tab.goto(f"{url}/#look/{view}?model=one@10&{query}")
        expect(tab.locator("#view-title")).to_have_text(view)
        expect(tab.locator("#checkpoint-shown")).to_have_text("step 10")
        expect(tab.locator("#figures")).to_be_visible()
        slider.focus()
        tab.keyboard.press("Home")
        tab.wait_for_url("**model=one%400**")
        expect(tab.locator("#figures[aria-busy]")).to_have_count(0)
        shown = tab.locator("#figures section.table").first.locator("td[data-value]").all()
        values = [float(cell.get_attribute("data-value")) for cell in shown]
        assert values == pytest.approx(first_numbers(view, 0, **options), rel=1e-4, abs=1e-5), view
    entropies = []
    for position in range(len(TEXT)):
        tab.goto(f"{url}/#look/lens?model=one@0&text={TEXT.replace(' ', '+')}&position={position}")
        expect(tab.locator("#figures .note").first).to_contain_text("If the model stopped after a layer")
        expect(tab.locator("#option-position")).to_have_value(str(position))
        expect(tab.locator("#figures[aria-busy]")).to_have_count(0)
        entropies.append(column(tab, "#figures section.table >> nth=0", 4)[-1])
    bits = math.log2(at(0)[1].vocab_size)  # ln V in bits
    assert sum(entropies) / len(entropies) == pytest.approx(bits, rel=0.05)
