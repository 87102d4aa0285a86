"""The page in a real browser: every number on the screen is compared with torch."""

from __future__ import annotations

import pytest

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import (
    PROMPT,
    check,
    freed,
    generated,
    ids_of,
    logits_of,
    look,
    opened,
    shown,
    wait_for_state,
    write,
    written,
)
from playwright.sync_api import expect
from served import running, small_decoder

from glassformer.models import GenerationSettings


def test_a_text_continues_when_the_context_is_full(tab, url, models):
    model, tokenizer = models["base"]  # reads 200 tokens
    opened(tab, url, temperature=0)
    ids = written(tab, PROMPT, tokens=320)
    assert len(ids) == 15 + 320
    first = tokenizer.encode(PROMPT)
    first += generated(model, tokenizer, first, 185, temperature=0)
    assert ids[:200] == first and ids[200:300] == generated(model, tokenizer, ids[100:200], 100, temperature=0)
    assert ids[300:] == generated(model, tokenizer, ids[200:300], 35, temperature=0)
    for index, start in ((199, 0), (200, 100), (320, 200)):  # of each window
        check(look(tab, index), logits_of(model, ids[start:index])[-1], index - 1, ids[index], temperature=0)
    tab.fill("#max-tokens", "90")
    tab.locator("#distribution tbody button").nth(1).click()
    wait_for_state(tab, "done")
    second = logits_of(model, ids[200:320])[-1].argsort(descending=True).tolist()[1]
    begun = [*ids[200:320], second]
    assert ids_of(tab)[200:400] == begun + generated(model, tokenizer, begun, 79, temperature=0)


def test_a_reload_loses_nothing(tab, url, models):
    opened(tab, url, temperature=0.6, topK=4)
    ids = written(tab, PROMPT, tokens=8)
    tab.reload()
    wait_for_state(tab, "idle")
    assert ids_of(tab) == ids and tab.input_value("#prompt") == PROMPT and tab.input_value("#topK-number") == "4"
    numbers = look(tab, 17)
    check(numbers, logits_of(models["base"][0], ids)[16], 16, ids[17], temperature=0.6, top_k=4)


def test_a_reload_in_the_middle_frees_the_row(tab, models, slow):
    with running(models) as url:
        opened(tab, url)
        write(tab, PROMPT, tokens=180)
        expect(tab.locator('[data-index="20"][data-id]')).to_be_visible()
        tab.reload()
        wait_for_state(tab, "idle")
        assert freed(tab, url) and len(ids_of(tab)) >= 20


def test_reading_alone_and_another_model_and_a_chat(tab, url, models):
    opened(tab, url)
    assert tab.locator("#model option").all_inner_texts() == ["base", "chat", "vectors"]
    expect(tab.locator("#modes")).to_be_hidden()
    tab.fill("#prompt", "lazy dog")
    tab.click("#read")
    wait_for_state(tab, "done")
    assert ids_of(tab) == models["base"][1].encode("lazy dog") and len(shown(tab, "#tokens")) == 7
    tab.select_option("#model", "chat")
    wait_for_state(tab, "idle")
    assert ids_of(tab) == []
    tab.click("#modes label:has([value=chat])")
    ids = written(tab, "lazy dog", tokens=5)
    start = models["chat"][1].chat.encode([{"role": "user", "content": "lazy dog"}], add_generation_prompt=True)
    assert ids[:-5] == start


def test_an_error_of_the_server_is_shown(tab, url):
    opened(tab, url)
    write(tab, "the fox " * 60)
    wait_for_state(tab, "error")
    assert tab.inner_text("#status-text") == "the prompt has 480 tokens and base reads 200 at most; shorten it"
    tab.errors[:] = [line for line in tab.errors if "400 (Bad Request)" not in line]  # Chromium's own note
    assert written(tab, PROMPT)


def test_the_key_form(tab, models):
    with running(models, api_key="secret") as url:
        tab.goto(url)
        for key in ("wrong", "secret"):
            wait_for_state(tab, "key")
            expect(tab.locator("#write")).to_be_disabled()
            tab.fill("#key", key)
            tab.keyboard.press("Enter")
            if key == "wrong":
                expect(tab.locator("#key")).to_have_value("")
        wait_for_state(tab, "idle")
        assert len(written(tab, PROMPT, tokens=4)) == 19
        tab.reload()
        wait_for_state(tab, "idle")
        tab.errors[:] = [line for line in tab.errors if "401 (Unauthorized)" not in line]


def test_with_the_keyboard_alone(tab, url, models):
    opened(tab, url, temperature=0)
    tab.fill("#max-tokens", "6")
    tab.reload()
    wait_for_state(tab, "idle")
    tab_to(tab, "#prompt")
    tab.keyboard.type(PROMPT)
    tab.keyboard.press("Control+Enter")
    wait_for_state(tab, "done")
    ids = ids_of(tab)
    tab_to(tab, ".token")
    for key in ("End", "ArrowLeft", "ArrowLeft"):
        tab.keyboard.press(key)
    place = len(ids) - 2
    expect(tab.locator(f'[data-source="entropy/{place - 1}"]')).to_be_visible()
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):  # into the rows, to the second one
        tab.keyboard.press(key)
    second = logits_of(models["base"][0], ids)[place - 1].argsort(descending=True).tolist()[1]
    tab.keyboard.press("Enter")
    wait_for_state(tab, "done")
    assert ids_of(tab)[: place + 1] == [*ids[:place], second]
    tab.keyboard.press("ArrowDown")
    tab.keyboard.press("Escape")
    assert tab.evaluate("document.activeElement.dataset.index") == str(place)


def tab_to(tab, selector: str) -> None:
    """Press Tab until that element has the focus."""
    for _ in range(30):
        tab.keyboard.press("Tab")
        if tab.evaluate(f"document.activeElement.matches('{selector}')"):
            return
    raise AssertionError(f"no way to {selector} with Tab")


@pytest.mark.parametrize("width", [360, 1280])
def test_nothing_is_wider_than_the_screen(tab, url, width):
    tab.set_viewport_size({"width": width, "height": 740})
    opened(tab, url, topK=5)
    written(tab, PROMPT + " " + "x" * 60, tokens=40)
    look(tab, 20)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("size", [(360, 640), (768, 1024)])
def test_on_a_phone_the_list_of_a_token_comes_into_view(tab, url, size):
    tab.set_viewport_size({"width": size[0], "height": size[1]})
    opened(tab, url, topK=5)
    written(tab, PROMPT, tokens=40)
    for place in (20, 7):
        look(tab, place)
        row = tab.locator("#distribution tbody tr").first
        expect(row).to_be_in_viewport()
        expect(tab.locator("#distribution .position")).to_be_in_viewport()
        sliders, table = tab.locator("#temperature").bounding_box(), row.bounding_box()
        assert table["y"] < sliders["y"], "the list is between the text and the sliders"
        assert tab.evaluate("document.documentElement.scrollWidth") <= size[0]
        tab.click(".back")
        token = tab.locator(f'#tokens [data-index="{place}"]')
        expect(token).to_be_in_viewport()
        expect(token).to_be_focused()


def test_sliders_start_at_the_defaults_of_the_folder(tab, models):
    model, tokenizer = small_decoder()
    model.generation_settings = GenerationSettings(temperature=0.35, top_k=7, repetition_penalty=5)
    with running({"set": (model, tokenizer), "base": models["base"]}) as url:
        tab.goto(url)
        wait_for_state(tab, "idle")
        expect(tab.locator("#temperature-number")).to_have_value("0.35")
        expect(tab.locator("#topK-number")).to_have_value("7")
        tab.select_option("#model", "base")
        expect(tab.locator("#temperature-number")).to_have_value("0.8")
        tab.fill("#temperature-number", "0.5")
        tab.select_option("#model", "set")
        wait_for_state(tab, "idle")
        expect(tab.locator("#temperature-number")).to_have_value("0.5")  # a slider moved by hand stays
        tab.click("#defaults")
        expect(tab.locator("#temperature-number")).to_have_value("0.35")
        tab.fill("#topK-number", "0")  # the page samples without the penalty of the folder
        ids = written(tab, PROMPT)
        given = tokenizer.encode(PROMPT)
        assert ids == given + generated(model, tokenizer, given, 12, temperature=0.35, top_p=0.9, seed=1)
        numbers = look(tab, len(ids) - 1)
        check(numbers, logits_of(model, ids)[-2], len(ids) - 2, ids[-1], temperature=0.35, top_p=0.9)


def test_on_a_wide_screen_a_click_scrolls_nothing(tab, url):
    opened(tab, url)
    written(tab, PROMPT, tokens=40)
    look(tab, 20)
    assert tab.evaluate("scrollY") == 0 and not tab.locator(".back").is_visible()


def test_requests_go_only_to_the_server(tab, url):
    opened(tab, url)
    written(tab, PROMPT)
    look(tab, 5)
    assert len(tab.requests) > 10 and all(address.startswith(url) for address in tab.requests)
