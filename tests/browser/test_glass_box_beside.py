"""Behaviour 8 of the page, "you are the GPT", and one prompt continued in several ways side by side."""

from __future__ import annotations

import math

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import PROMPT, generated, logits_of, shown, wait_for_state
from playwright.sync_api import expect
from served import running, small_decoder

from glassformer.generation import Sampling, filtered_probabilities


def reach(tab, url: str) -> None:
    tab.goto(url)
    wait_for_state(tab, "idle")


def test_08_you_are_the_gpt(tab, url, models):
    """Guess before the bars appear; bits against the model and a uniform guess."""
    model, tokenizer = models["base"]
    reach(tab, f"{url}/#guess")
    tab.fill("#guess-text", "the quick brown fox")
    tab.click("#guess-start")
    ids = tokenizer.encode("the quick brown fox")
    V = tokenizer.vocab_size
    logp = logits_of(model, ids).double().log_softmax(-1) / math.log(2)
    expect(tab.locator("#guess")).to_be_focused()
    begun = tab.locator("#guess-panel .tokens [data-id]").count()
    assert begun == math.ceil(len(ids) / 3)
    mine, its = [], []
    for n, (sure, right) in enumerate([(90, True), (50, False), (25, True), (99, False)]):
        place = begun + n
        expect(tab.locator("#guess-panel .tokens [data-id]")).to_have_count(place)
        if n == 0:
            expect(tab.locator("#guess-panel .right .card")).to_be_hidden()
        else:  # what is shown is the token before, never the one to be guessed
            assert f"surprise/{place - 1}/{ids[place]}" not in shown(tab, "#guess-panel .right .card")
        wrong = "z" if tokenizer.decode([ids[place]]) != "z" else "a"
        tab.fill("#sure", str(sure))
        tab.fill("#guess", tokenizer.decode([ids[place]]) if right else wrong)
        tab.keyboard.press("Enter")
        share = sure / 100 if right else (1 - sure / 100) / (V - 1)
        mine.append(-math.log2(share))
        its.append(-float(logp[place - 1, ids[place]]))
        expect(tab.locator(f'[data-source="your-bits/{place}"]')).to_be_visible()
        numbers = shown(tab, "#verdict")
        assert numbers[f"your-bits/{place}"] == pytest.approx(mine[-1], abs=1e-9)
        assert numbers[f"model-bits/{place}"] == pytest.approx(its[-1], abs=1e-4)
        bars = tab.locator(f'#guess-panel .right [data-source="surprise/{place - 1}/{ids[place]}"]')
        expect(bars).to_be_visible()
    numbers = shown(tab, "#score")
    wanted = [sum(mine) / 4, sum(its) / 4, math.log2(V)]
    assert [numbers[f"score/0/{i}/1"] for i in range(3)] == pytest.approx(wanted, abs=1e-4)


def test_one_prompt_at_temperatures_0_1_and_5_of_the_top_20(tab, url, models):
    model, tokenizer = models["base"]
    reach(tab, f"{url}/#side-by-side")
    tab.fill("#side-prompt", PROMPT)
    tab.fill("#side-tokens", "8")
    tab.fill("#side-seed", "4")
    tab.click("#side-go")
    begun = tokenizer.encode(PROMPT)
    columns = tab.locator(".column")
    expect(columns).to_have_count(3)
    for column, temperature in zip(columns.all(), (0, 1, 5), strict=True):
        expect(column).to_have_attribute("data-state", "done")
        ids = begun + generated(model, tokenizer, begun, 8, temperature=temperature, top_k=20, seed=4)
        expect(column.locator(f'[data-index="{len(ids) - 1}"][data-id="{ids[-1]}"]')).to_be_visible()
        assert [int(one.get_attribute("data-id")) for one in column.locator(".tokens [data-id]").all()] == ids
    second = columns.nth(1)
    second.locator(f'[data-index="{len(begun) + 3}"]').click()  # the same place in all columns
    for n, temperature in enumerate((0, 1, 5)):
        ids = begun + generated(model, tokenizer, begun, 8, temperature=temperature, top_k=20, seed=4)
        place = len(begun) + 2
        column = columns.nth(n)
        bars = column.locator(f'.top-bars [data-source^="side-{n}/{place}/"]')
        expect(bars).to_have_count(21)
        logits_1V = logits_of(model, ids)[place][None]
        p_V = filtered_probabilities(logits_1V, Sampling(temperature=temperature, top_k=20))[0]
        best = logits_1V[0].sort(descending=True, stable=True).indices[:20].tolist()
        found = {one.get_attribute("data-source"): float(one.get_attribute("data-value")) for one in bars.all()}
        wanted = {f"side-{n}/{place}/{i}": float(p_V[i]) for i in best} | {f"side-{n}/{place}/others": 0.0}
        assert found == pytest.approx(wanted, abs=1e-6)
        assert sum(found.values()) == pytest.approx(1, abs=1e-9)
        expect(column.locator(".top-bars .came")).to_have_attribute("data-token", str(ids[place + 1]))


def test_two_models_side_by_side(tab, models):
    other, tokenizer = small_decoder()
    with torch.no_grad():
        other.head.weight.mul_(-1)
    with running({"base": models["base"], "other": (other.eval(), tokenizer), "vectors": models["vectors"]}) as url:
        reach(tab, f"{url}/#side-by-side")
        tab.click("#side-models")
        columns = tab.locator(".column")
        expect(columns).to_have_count(2)  # those that write
        tab.fill("#side-prompt", PROMPT)
        tab.fill("#side-tokens", "6")
        tab.click("#side-go")
        begun = tokenizer.encode(PROMPT)
        for column, pair in zip(columns.all(), (models["base"], (other, tokenizer)), strict=True):
            expect(column).to_have_attribute("data-state", "done")
            ids = begun + generated(*pair, begun, 6, seed=1)
            assert [int(one.get_attribute("data-id")) for one in column.locator(".tokens [data-id]").all()] == ids
            loss = torch.nn.functional.cross_entropy(logits_of(pair[0], ids)[:-1].double(), torch.tensor(ids[1:]))
            mean = column.locator('[data-source^="loss/side-"][data-source$="/all"]').first
            assert float(mean.get_attribute("data-value")) == pytest.approx(float(loss), abs=1e-5)
        tab.click(".column >> nth=1 >> text=remove")
        expect(columns).to_have_count(1)
        tab.click("#side-more")
        expect(columns).to_have_count(2)
