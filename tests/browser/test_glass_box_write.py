"""Behaviours 1 to 7 of the page, in a real browser: distribution, sampling and surprise. Every number is torch's."""

from __future__ import annotations

import json
import math
import random
import re

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

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
from served import running


def test_01_any_token_opens_its_full_distribution(tab, url, models):
    model, tokenizer = models["base"]
    opened(tab, url, temperature=0.8)
    ids = written(tab, PROMPT, tokens=12, seed=3)
    start = tokenizer.encode(PROMPT)
    assert ids == start + generated(model, tokenizer, start, 12, temperature=0.8, seed=3)
    assert tab.inner_text("#status-text") == "Written: 15 tokens read, 12 written."
    assert tab.inner_text("#seed-shown") == "3"
    logits_TV = logits_of(model, ids)
    for index in (1, 7, 15, len(ids) - 1, len(ids)):  # of the prompt, of the answer, and what comes next
        numbers = look(tab, index)
        check(numbers, logits_TV[index - 1], index - 1, [*ids, None][index], temperature=0.8)
        assert len(tab.query_selector_all("#distribution tbody tr")) <= 17
    tab.click("#more")
    assert len([s for s in shown(tab) if s.startswith("logits/")]) == 30
    tab.click('[data-index="0"]')
    expect(tab.locator("#distribution")).to_contain_text("The first token has no probability")


SHOWN_DISTRIBUTIONS = """() => {
    window.shownAt = new Set();
    const root = document.getElementById("distribution");
    new MutationObserver(() => {
        const found = root.querySelector('[data-source^="entropy/"]');
        if (found) window.shownAt.add(Number(found.dataset.source.split("/")[1]));
    }).observe(root, { childList: true, subtree: true });
}"""


def test_01_the_distribution_of_each_new_token_while_it_writes(tab, models, slow):
    tokenizer = models["base"][1]
    with running(models) as url:
        opened(tab, url)
        tab.check("#follow")
        tab.evaluate(SHOWN_DISTRIBUTIONS)
        write(tab, PROMPT, tokens=45)
        wait_for_state(tab, "done")
        ids = ids_of(tab)
        expect(tab.locator(f'#tokens [data-index="{len(ids) - 1}"]')).to_have_attribute("aria-selected", "true")
        expect(tab.locator(f'#distribution [data-source="entropy/{len(ids) - 2}"]')).to_be_visible()
        check(shown(tab), logits_of(models["base"][0], ids)[-2], len(ids) - 2, ids[-1])
        seen = tab.evaluate("[...window.shownAt]")
        assert len(seen) > 2 and seen == sorted(seen) and seen[0] >= len(tokenizer.encode(PROMPT)) - 1  # of the answer
        tab.goto("about:blank")  # what the page still asks for would find no server


COUNT_UPDATES = """() => {
    window.updates = [];
    const seen = new MutationObserver((changes) => {
        for (const change of changes) for (const added of change.addedNodes)
            if (added.dataset?.id && !window.updates.includes(added)) window.updates.push(added);
    });
    seen.observe(document.getElementById("tokens"), { childList: true });
}"""
STOP = """() => {
    const ids = () => [...document.querySelectorAll("#tokens [data-id]")].map((one) => Number(one.dataset.id));
    document.getElementById("stop").click();
    return { ids: ids(), state: document.getElementById("status").dataset.state };
}"""


def test_02_tokens_stream_in_order_and_stop_at_once(tab, models, slow):
    with running(models) as url:
        opened(tab, url)
        tab.evaluate(COUNT_UPDATES)
        ids = written(tab, PROMPT, tokens=9)
        order = tab.evaluate("window.updates.map((one) => [Number(one.dataset.index), Number(one.dataset.id)])")
        assert order == [[i, token] for i, token in enumerate(ids)]  # one element a token, each added once and in order
        write(tab, PROMPT, tokens=150)
        wait_for_state(tab, "streaming")
        expect(tab.locator('[data-index="25"][data-id]')).to_be_visible()
        numbers = look(tab, 20)  # while it writes
        check(numbers, logits_of(models["base"][0], ids_of(tab)[:20])[19], 19, ids_of(tab)[20])
        wait_for_state(tab, "streaming")
        stopped = tab.evaluate(STOP)  # within the click itself, which is less than any number of milliseconds
        assert stopped["state"] == "stopped"
        seen = stopped["ids"]
        assert 20 < len(seen) < 160 and tab.inner_text("#status-text").startswith("Stopped: 15 tokens read")
        assert freed(tab, url) and ids_of(tab) == seen
        check(look(tab, len(seen) - 1), logits_of(models["base"][0], seen)[-2], len(seen) - 2, seen[-1])
        tab.fill("#max-tokens", "3")
        tab.click("#continue")
        wait_for_state(tab, "done")
        assert ids_of(tab)[: len(seen)] == seen and len(ids_of(tab)) == len(seen) + 3


def independent_sampler(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> tuple:
    """Probabilities and the filter that cut each token, by numpy in double precision and from the definitions alone."""
    order = sorted(range(len(logits)), key=lambda i: (-logits[i], i))
    cut = [""] * len(logits)
    if temperature == 0:
        return np.eye(len(logits))[order[0]], ["" if i == order[0] else "temperature 0" for i in range(len(logits))]
    weights = np.exp((logits - logits.max()) / temperature)
    if 0 < top_k < len(logits):
        for i in range(len(logits)):
            cut[i] = "top-k" if logits[i] < logits[order[top_k - 1]] else ""
    p = np.where([not why for why in cut], weights, 0) / weights[[not why for why in cut]].sum()
    if top_p < 1:
        above = 0.0
        for i in order:
            if not cut[i]:
                cut[i] = "top-p" if above >= top_p and i != order[0] else ""
                above += p[i]
    for i in range(len(logits)):
        if not cut[i] and p[i] < min_p * p.max():
            cut[i] = "min-p"
    kept = np.where([not why for why in cut], p, 0)
    return kept / kept.sum(), cut


def random_settings(chance: random.Random) -> dict[str, float]:
    return {
        "temperature": chance.choice([0, 1, 5, round(chance.uniform(0.05, 5), 3)]),
        "topK": chance.choice([0, chance.randint(1, 40)]),
        "topP": chance.choice([1, round(chance.uniform(0.05, 0.999), 3)]),
        "minP": chance.choice([0, round(chance.uniform(0.001, 0.5), 4)]),
    }


def test_03_raw_and_final_and_why_each_token_was_cut(tab, url, models):
    opened(tab, url)
    chance, g = random.Random(7), torch.Generator().manual_seed(3)
    settings = [random_settings(chance) for _ in range(200)]
    logits = [3 * torch.randn(30, generator=g) for _ in settings]
    run = """async cases => {
        const { filtered, ranking, REASONS } = await import("/web/sampling.js");
        return cases.map(([logits, settings]) => {
            const { probabilities, reasons } = filtered(Float32Array.from(logits), ranking(logits), settings);
            return [[...probabilities], [...reasons].map((reason) => REASONS[reason])];
        });
    }"""
    given = [[row.tolist(), some] for row, some in zip(logits, settings, strict=True)]
    for (row, some), (p, reasons) in zip(given, tab.evaluate(run, given), strict=True):
        wanted, cut = independent_sampler(np.array(row), *some.values())
        assert p == pytest.approx(wanted.tolist(), abs=1e-6) and reasons == cut, some
    ids = written(tab, PROMPT)  # and on the screen
    look(tab, 9)
    logits_V = logits_of(models["base"][0], ids)[8].double().numpy()
    for name, value in (("topK", 9), ("topP", 0.6), ("minP", 0.3)):
        for other, off in (("topK", 0), ("topP", 1), ("minP", 0)):
            tab.fill(f"#{other}-number", str(value if other == name else off))
        _, cut = independent_sampler(
            logits_V, 1.0, *(value if n == name else off for n, off in (("topK", 0), ("topP", 1), ("minP", 0)))
        )
        rows = tab.eval_on_selector_all(
            "#distribution tr[data-token]",
            "all => all.map(row => [+row.dataset.token, row.querySelector('.reason')?.firstChild.textContent ?? ''])",
        )
        assert len(rows) >= 15 and any(why for _, why in rows)
        for token, why in rows:
            assert why == (f"cut by {cut[token]}" if cut[token] else ""), token
        assert tab.locator("#distribution .reason").first.get_attribute("title")


def test_04_temperature_from_0_to_5_moves_the_bars_with_no_request(tab, url, models):
    opened(tab, url)
    ids = written(tab, PROMPT)
    look(tab, 9)
    logits_V = logits_of(models["base"][0], ids)[8]

    before = len(tab.requests)
    settings: dict[str, float] = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    for name, field, value in (
        ("temperature", "temperature", 0.37), ("topK", "top_k", 11), ("topP", "top_p", 0.8), ("minP", "min_p", 0.2),
        ("temperature", "temperature", 5), ("topP", "top_p", 1), ("temperature", "temperature", 0),
    ):  # fmt: skip
        tab.fill(f"#{name}-number", str(value))
        settings[field] = value
        check(shown(tab), logits_V, 8, ids[9], **settings)
    assert "no tie" in tab.inner_text("#distribution .left-over")
    assert shown(tab)[f"sampling/8/{int(logits_V.argmax())}"] == 1
    tab.fill("#temperature-number", "0.9")
    tab.focus("#temperature")
    for _ in range(5):
        tab.keyboard.press("ArrowRight")
    check(shown(tab), logits_V, 8, ids[9], **settings | {"temperature": 0.95})
    tab.keyboard.press("End")
    assert tab.input_value("#temperature-number") == "5"
    tab.click("#neutral")
    check(shown(tab), logits_V, 8, ids[9])
    tab.fill("#temperature-number", "100")  # every bar ends at the dashed line
    assert shown(tab)["limit/8"] == pytest.approx(1 / 30)
    for row in tab.query_selector_all("#distribution tbody tr:not(.rest)"):
        bar, line = row.query_selector(".sampled").bounding_box(), row.query_selector(".limit").bounding_box()
        assert bar["x"] + bar["width"] == pytest.approx(line["x"], abs=0.05 * bar["width"] + 2)
    assert tab.requests[before:] == []


def test_05_the_draw_is_shown_and_a_slider_never_draws_again(tab, url, models, tmp_path):
    import glassformer as gf
    from glassformer.cli import app

    model, tokenizer = models["base"]
    opened(tab, url, temperature=0.9)
    ids = written(tab, PROMPT, tokens=6, seed=11)
    begun = tokenizer.encode(PROMPT)
    random_numbers = torch.Generator().manual_seed(11)
    logits_TV = logits_of(model, ids)
    for index in range(len(begun), len(ids)):
        numbers = look(tab, index)
        u = float(torch.rand(1, generator=random_numbers, dtype=torch.float64))
        p, token = index - 1, ids[index]
        assert numbers[f"u/{p}"] == u
        assert numbers[f"from/{p}/{token}"] <= u < numbers[f"to/{p}/{token}"]
        check(numbers, logits_TV[p], p, token, temperature=0.9)
    at = tab.locator(".draw-line .u").bounding_box()
    came = tab.locator(".draw-line .came").bounding_box()
    assert came["x"] - 2 <= at["x"] + at["width"] / 2 <= came["x"] + came["width"] + 2  # the mark is on its part
    before = len(tab.requests)
    for temperature in ("0.2", "3", "0.9"):
        tab.fill("#temperature-number", temperature)
        assert ids_of(tab) == ids and shown(tab)[f"u/{len(ids) - 2}"] == u
    assert len(tab.requests) == before
    (done,) = gf.generate(model, tokenizer, PROMPT, max_new_tokens=6, temperature=0.9, seed=11)
    assert [piece.token for piece in done.pieces] == ids[len(begun) :]
    gf.save(tmp_path, model, tokenizer)
    asked = ["generate", str(tmp_path), "--prompt", PROMPT, "-n", "6", "--temperature", "0.9", "--seed", "11", "--json"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    assert [piece["token"] for piece in json.loads(result.stdout)["pieces"]] == ids[len(begun) :]
    tab.click(f'[data-index="{len(begun) - 1}"]')
    expect(tab.locator(".draw")).to_contain_text("this token was given")
    tab.fill("#temperature-number", "0")
    ids = written(tab, PROMPT, tokens=3)
    look(tab, len(ids) - 1)
    expect(tab.locator(".draw")).to_contain_text("at temperature 0 the most likely token is taken")


def test_06_an_alternative_makes_a_branch_and_the_old_path_stays(tab, url, models):
    model, tokenizer = models["base"]
    opened(tab, url, temperature=0)
    ids = written(tab, PROMPT, tokens=10)
    old = look(tab, 20)
    look(tab, 18)
    order = logits_of(model, ids)[17].argsort(descending=True).tolist()
    tab.locator("#distribution tbody button").nth(3).click()
    wait_for_state(tab, "done")
    begun = [*ids[:18], order[3]]
    branched = begun + generated(model, tokenizer, begun, 10, temperature=0)
    assert ids_of(tab) == branched and branched[18] != ids[18]
    assert tab.evaluate("document.activeElement.dataset.index") == "18"
    check(shown(tab), logits_of(model, branched)[17], 17, order[3], temperature=0)
    check(look(tab, 20), logits_of(model, branched)[19], 19, branched[20], temperature=0)  # nothing of the old text
    look(tab, 4)  # in the prompt as well, by a token that is looked for
    tab.fill("#find", "z")
    expect(tab.locator("#distribution tbody button")).to_have_count(2)  # and the one that came
    tab.locator("#distribution tbody button").first.click()
    wait_for_state(tab, "done")
    third = [*ids[:4], *tokenizer.encode("z")]
    third += generated(model, tokenizer, third, 10, temperature=0)
    assert ids_of(tab) == third
    tab.fill("#find", "")
    # the tree has all three with their numbers, and Back and Forward walk over it
    expect(tab.locator("#branches .branch")).to_have_count(3)
    numbers = shown(tab, "#branches")
    for n, text in enumerate((ids, branched, third), 1):
        assert numbers[f"branch-tokens/{n}"] == len(text)
        assert numbers[f"branch-bits/{n}"] == pytest.approx(mean_bits(model, text), abs=1e-5)
    for walk, text in (
        (tab.go_back, branched),
        (tab.go_back, ids),
        (tab.go_forward, branched),
        (tab.go_forward, third),
    ):
        walk()
        expect(tab.locator("#tokens [data-id]")).to_have_count(len(text))
        expect(tab.locator(f'#tokens [data-index="{len(text) - 1}"][data-id="{text[-1]}"]')).to_be_visible()
        assert ids_of(tab) == text
    before = len(tab.requests)
    tab.click('#branches [data-branch="1"]')
    expect(tab.locator("#tokens [data-id]")).to_have_count(len(ids))
    assert look(tab, 20) == old and not [one for one in tab.requests[before:] if "logits" in one]  # traces are kept
    tab.reload()
    wait_for_state(tab, "idle")
    assert ids_of(tab) == ids
    tab.click('#branches [data-branch="2"]')
    expect(tab.locator('#branches [data-branch="2"]')).to_have_attribute("aria-current", "true")
    assert ids_of(tab) == branched


def test_06_two_branches_are_compared(tab, url, models):
    model, _ = models["base"]
    opened(tab, url, temperature=0)
    ids = written(tab, PROMPT, tokens=10)
    look(tab, 18)
    tab.locator("#distribution tbody button").nth(2).click()
    wait_for_state(tab, "done")
    branched = ids_of(tab)
    tab.click('#branches [data-compare="1"]')
    expect(tab.locator("#comparison table")).to_be_visible()
    numbers = shown(tab, "#comparison .table")
    for row, p in enumerate(range(18, 25)):
        for column, text in ((2, branched), (6, ids)):
            logp = logits_of(model, text)[p - 1].log_softmax(-1)
            assert numbers[f"branches/1/{row}/0"] == p
            assert numbers[f"branches/1/{row}/{column}"] == pytest.approx(float(logp[text[p]].exp()), abs=1e-6)
            assert numbers[f"branches/1/{row}/{column + 1}"] == pytest.approx(
                -float(logp[text[p]]) / math.log(2), abs=1e-4
            )
    expect(tab.locator("#comparison")).to_contain_text("Shared: 18 tokens.")
    tab.click('#branches [data-remove="1"]')
    expect(tab.locator("#branches")).to_be_hidden()


def test_24_a_link_reopens_the_text_with_the_same_numbers(tab, url, browser, models):
    """Token, sliders and text stand in the address; a tab that never saw the text shows the same numbers."""
    opened(tab, url, temperature=0.7, topK=7)
    ids = written(tab, PROMPT, tokens=10)
    numbers = look(tab, 19)
    expect(tab).to_have_url(re.compile(r"token=19"))
    other = browser.new_context().new_page()
    other.goto(tab.url)
    expect(other.locator('#distribution [data-source="entropy/18"]')).to_be_visible()
    assert ids_of(other) == ids
    found = shown(other)
    found.pop("u/18", None), numbers.pop("u/18")  # the link names the token, not the draw
    assert found == pytest.approx(numbers, abs=1e-5)
    assert shown(other, "#mean")["loss/written"] == pytest.approx(shown(tab, "#mean")["loss/written"], abs=1e-6)
    wrong = other.context.new_page()
    wrong.goto(f"{url}/#write?model=base&ids=999999")
    wait_for_state(wrong, "error")
    expect(wrong.locator("#status-text")).to_contain_text("999999")
    other.context.close()


def mean_bits(model, ids: list[int]) -> float:
    loss = torch.nn.functional.cross_entropy(logits_of(model, ids)[:-1].double(), torch.tensor(ids[1:]))
    return float(loss) / math.log(2)


def test_07_surprise_with_rank_and_the_mean_is_the_cross_entropy(tab, url, models):
    model, _ = models["base"]
    opened(tab, url)
    ids = written(tab, PROMPT, tokens=20, seed=5)
    logits_TV = logits_of(model, ids)[:-1]
    came_T = torch.tensor(ids[1:])
    surprise = -logits_TV.log_softmax(-1).gather(1, came_T[:, None])[:, 0] / math.log(2)
    wanted = {f"surprise/{p}/{ids[p + 1]}": float(surprise[p]) for p in range(len(ids) - 1)}
    assert shown(tab, "#tokens") == pytest.approx(wanted, abs=1e-5)
    loss = float(torch.nn.functional.cross_entropy(logits_TV.double(), came_T))
    numbers = shown(tab, "#mean")
    assert numbers["loss/all"] == pytest.approx(loss, abs=1e-5)
    assert numbers["perplexity/all"] == pytest.approx(math.exp(loss), rel=1e-5)
    assert numbers["mean-bits/all"] == pytest.approx(loss / math.log(2), abs=1e-5)
    assert numbers["predicted/all"] == len(ids) - 1
    n = len(ids) - 20
    assert numbers["loss/given"] == pytest.approx(float(surprise[: n - 1].mean()) * math.log(2), abs=1e-5)
    assert numbers["loss/written"] == pytest.approx(float(surprise[n - 1 :].mean()) * math.log(2), abs=1e-5)
    for index in (3, 17, len(ids) - 1):
        tab.hover(f'#tokens [data-index="{index}"]')
        expect(tab.locator(f'#readout [data-source="p/{index}"]')).to_be_visible()
        numbers = shown(tab, "#readout")
        own = logits_TV[index - 1].softmax(-1)
        assert numbers[f"p/{index}"] == pytest.approx(float(own[ids[index]]), abs=1e-6)
        assert numbers[f"bits/{index}"] == pytest.approx(float(surprise[index - 1]), abs=1e-4)
        assert numbers[f"token-rank/{index}"] == 1 + int((own > own[ids[index]]).sum())
