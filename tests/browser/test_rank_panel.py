"""Ranking on the page: keys pick, skip and take back; the pairs are those of `glassformer rank`."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from accessibility import findings
from playwright.sync_api import expect
from served import listening, small_decoder

from glassformer.data.chat_sets import chat_rows
from glassformer.server import ModelHandle, create_app
from glassformer.server.ranking import Ranking

PROMPTS = ["the fox", "a dog", "the lazy"]


@pytest.fixture
def ranked(tmp_path):
    prompts, pairs = tmp_path / "prompts.jsonl", tmp_path / "pairs.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in PROMPTS))
    app = create_app({"base": ModelHandle("base", *small_decoder())}, ranking=Ranking(str(prompts), pairs, 3))
    with listening(app) as url:
        yield url, pairs


def test_keys_pick_skip_and_take_back_and_pairs_are_written_at_once(tab, ranked):
    url, file = ranked
    tab.goto(f"{url}/#rank")
    expect(tab.locator(".rank-answer")).to_have_count(3)
    assert tab.inner_text("#rank-prompt") == PROMPTS[0]
    texts = tab.locator(".rank-answer span").all_text_contents()
    assert len(set(texts)) == 3
    assert findings(tab) == []
    tab.keyboard.press("2")
    expect(tab.locator("#rank-place")).to_have_text("prompt 2 of 3 · 2 pairs")
    pairs = [json.loads(line) for line in file.read_text().splitlines()]
    assert pairs == [{"prompt": PROMPTS[0], "chosen": texts[1], "rejected": texts[i]} for i in (0, 2)]
    tab.keyboard.press("u")
    expect(tab.locator("#rank-place")).to_have_text("prompt 1 of 3 · 0 pairs")
    assert tab.locator(".rank-answer span").all_text_contents() == texts and file.read_text() == ""
    tab.keyboard.press("s")
    expect(tab.locator("#rank-place")).to_have_text("prompt 2 of 3 · 0 pairs")
    tab.locator(".rank-answer").nth(0).click()
    expect(tab.locator("#rank-place")).to_have_text("prompt 3 of 3 · 2 pairs")
    expect(tab.locator(".rank-answer")).to_have_count(3)
    tab.keyboard.press("3")
    expect(tab.locator("#rank-prompt")).to_have_text("All prompts are ranked.")
    assert len(chat_rows(str(file))) == 4  # what tune dpo and tune reward read


def test_without_prompts_the_page_says_how(tab, url):
    tab.goto(f"{url}/#rank")
    expect(tab.locator("#rank-panel")).to_contain_text("--rank prompts.jsonl --pairs pairs.jsonl")
