"""The page in a real browser: every number on the screen is compared with torch."""

from __future__ import annotations

import math
import time
import urllib.request

import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from actions import bits, ids_of, logits_of, look, opened, shown, wait_for_state, write, written
from playwright.sync_api import expect
from served import pieces_of, running, small_decoder

from glassformer.generation import Engine, Sampling, filtered_probabilities
from glassformer.models import GenerationSettings

PROMPT = "the quick brown"


@pytest.fixture
def slow(monkeypatch):
    """An engine that takes its time, so that a browser can see it write."""
    step = Engine.step

    def slowly(self):
        time.sleep(0.05)
        return step(self)

    monkeypatch.setattr(Engine, "step", slowly)


def generated(model, tokenizer, ids: list[int], n: int, **sampling) -> list[int]:
    return [piece.token for piece in pieces_of((model, tokenizer), ids, n, **sampling)]


def check(numbers: dict[str, float], logits_V: torch.Tensor, p: int, came: int | None, **sampling) -> None:
    """Every number of a position, against torch."""
    own, sampled = logits_V.softmax(-1), filtered_probabilities(logits_V[None], Sampling(**sampling))[0]
    rank = {int(i): r for r, i in enumerate(logits_V.sort(descending=True, stable=True).indices, 1)}
    rows = [int(source.split("/")[2]) for source in numbers if source.startswith("logits/")]
    wanted = {
        f"entropy/{p}": bits(own), f"entropy-sampled/{p}": bits(sampled), f"vocabulary/{p}": len(own),
        f"kept/{p}": int((sampled > 0).sum()), f"others/{p}": len(own) - len(rows),
        f"probability/{p}/others": 1 - float(own[rows].sum()), f"sampling/{p}/others": 1 - float(sampled[rows].sum()),
    }  # fmt: skip
    for i in rows:
        wanted |= {f"logits/{p}/{i}": float(logits_V[i]), f"rank/{p}/{i}": rank[i]}
        wanted |= {f"probability/{p}/{i}": float(own[i]), f"sampling/{p}/{i}": float(sampled[i])}
    if came is not None:
        wanted[f"surprise/{p}/{came}"] = -math.log2(own[came])
    cuts = {source: value for source, value in numbers.items() if source.startswith("cut/")}
    assert sum(cuts.values()) == len(own) - wanted[f"kept/{p}"]
    assert {source: value for source, value in numbers.items() if source not in cuts} == pytest.approx(wanted, abs=1e-5)
    for kind in ("probability", "sampling"):
        assert sum(v for source, v in numbers.items() if source.startswith(f"{kind}/")) == pytest.approx(1, abs=1e-9)


def test_every_number_on_the_screen_is_torchs(tab, url, models):
    model, tokenizer = models["base"]
    opened(tab, url, temperature=0.8)
    ids = written(tab, PROMPT, tokens=12, seed=3)
    start = tokenizer.encode(PROMPT)
    assert ids == start + generated(model, tokenizer, start, 12, temperature=0.8, seed=3)
    assert tab.inner_text("#status-text") == "Written: 15 tokens read, 12 written."
    assert tab.inner_text("#seed-shown") == "3"
    logits_TV = logits_of(model, ids)
    surprise = -logits_TV.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0] / math.log(2)
    wanted = {f"surprise/{p}/{ids[p + 1]}": float(surprise[p]) for p in range(len(ids) - 1)}
    assert shown(tab, "#tokens") == pytest.approx(wanted, abs=1e-5)
    for index in (1, 7, 15, len(ids) - 1, len(ids)):  # of the prompt, of the answer, and what comes next
        numbers = look(tab, index)
        check(numbers, logits_TV[index - 1], index - 1, [*ids, None][index], temperature=0.8)
        assert len(tab.query_selector_all("#distribution tbody tr")) <= 17
    tab.click("#more")
    assert len([s for s in shown(tab) if s.startswith("logits/")]) == 30
    tab.click('[data-index="0"]')
    expect(tab.locator("#distribution")).to_contain_text("The first token has no probability")


def test_sliders_need_no_server_and_show_what_is_cut(tab, url, models):
    opened(tab, url)
    ids = written(tab, PROMPT)
    look(tab, 9)
    logits_V = logits_of(models["base"][0], ids)[8]
    before = len(tab.requests)
    settings: dict[str, float] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    for name, field, value, seen in (
        ("temperature", "temperature", 0.37, None), ("topK", "top_k", 11, "top-k"), ("topP", "top_p", 0.8, "top-p"),
        ("minP", "min_p", 0.2, "min-p"), ("temperature", "temperature", 2.5, None), ("topP", "top_p", 1, None),
        ("temperature", "temperature", 0, "temperature 0"),
    ):  # fmt: skip
        tab.fill(f"#{name}-number", str(value))
        settings[field] = value
        check(shown(tab), logits_V, 8, ids[9], **settings)
        reasons = set(tab.locator("#distribution .reason").all_inner_texts())
        assert seen is None or seen in reasons, (seen, reasons)
    tab.fill("#temperature-number", "0.9")
    tab.focus("#temperature")
    for _ in range(5):
        tab.keyboard.press("ArrowRight")
    check(shown(tab), logits_V, 8, ids[9], **settings | {"temperature": 0.95})
    tab.click("#neutral")
    check(shown(tab), logits_V, 8, ids[9])
    assert len(tab.requests) == before


def test_another_token_is_chosen_and_the_text_continues_from_there(tab, url, models):
    model, tokenizer = models["base"]
    opened(tab, url, temperature=0)
    ids = written(tab, PROMPT, tokens=10)
    look(tab, 20)
    look(tab, 18)
    order = logits_of(model, ids)[17].argsort(descending=True).tolist()
    tab.locator("#distribution tbody button").nth(3).click()
    wait_for_state(tab, "done")
    begun = [*ids[:18], order[3]]
    branched = begun + generated(model, tokenizer, begun, 10, temperature=0)
    assert ids_of(tab) == branched and branched[18] != ids[18]
    assert tab.evaluate("document.activeElement.dataset.index") == "18"
    check(shown(tab), logits_of(model, branched)[17], 17, order[3], temperature=0)
    numbers = look(tab, 20)  # nothing of the old text is kept
    check(numbers, logits_of(model, branched)[19], 19, branched[20], temperature=0)
    look(tab, 4)  # in the prompt as well, by a token that is looked for
    tab.fill("#find", "z")
    expect(tab.locator("#distribution tbody button")).to_have_count(2)  # and the one that came
    tab.locator("#distribution tbody button").first.click()
    wait_for_state(tab, "done")
    begun = [*ids[:4], *tokenizer.encode("z")]
    assert ids_of(tab) == begun + generated(model, tokenizer, begun, 10, temperature=0)


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


def test_tokens_stream_and_stop(tab, models, slow):
    with running(models) as url:
        opened(tab, url)
        write(tab, PROMPT, tokens=150)
        wait_for_state(tab, "streaming")
        expect(tab.locator('[data-index="25"][data-id]')).to_be_visible()
        wait_for_state(tab, "streaming")
        numbers = look(tab, 20)  # while it writes
        check(numbers, logits_of(models["base"][0], ids_of(tab)[:20])[19], 19, ids_of(tab)[20])
        wait_for_state(tab, "streaming")
        tab.click("#stop")
        wait_for_state(tab, "stopped")
        seen = ids_of(tab)
        assert 20 < len(seen) < 160 and tab.inner_text("#status-text").startswith("Stopped: 15 tokens read")
        assert freed(tab, url) and ids_of(tab) == seen
        tab.fill("#max-tokens", "3")
        tab.click("#continue")
        wait_for_state(tab, "done")
        assert ids_of(tab)[: len(seen)] == seen and len(ids_of(tab)) == len(seen) + 3


def freed(tab, url: str) -> bool:
    """Whether no row is active, long before the end of the text."""
    until = time.monotonic() + 6
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{url}/metrics") as answer:
            if 'glassformer_rows_active{model="base"} 0.0' in answer.read().decode():
                return True
        tab.wait_for_timeout(50)
    return False


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
