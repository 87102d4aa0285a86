"""The glass box, behaviours 10 to 13: attention, step by step, and what a model does without a part of itself."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from playwright.sync_api import expect
from test_look_inside import opened

from glassformer.inspection import ablate, attention_walkthrough, trace

TEXT = "the quick fox"


def patterns_of(model: Any, tokenizer: Any, text: str) -> np.ndarray:
    """(L, H, T, T), by the taps alone."""
    with trace(model, "blocks.*.attention.pattern") as seen, torch.no_grad():
        model(torch.tensor([tokenizer.encode(text)]))
    return torch.cat(list(seen.values())).numpy()


def cells(tab: Any, figure: int, view: str = "attention") -> np.ndarray:
    """The numbers of a heat map as they stand on the page, NaN where there is none; (rows, columns)."""
    found = tab.eval_on_selector_all(
        f'#figures rect[data-source^="{view}/{figure}/"]',
        "all => all.map(one => [...one.dataset.source.split('/').slice(2).map(Number), Number(one.dataset.value)])",
    )
    rows, columns = (int(max(cell[axis] for cell in found)) + 1 for axis in (0, 1))
    values = np.full((rows, columns), np.nan)
    for r, c, value in found:
        values[int(r), int(c)] = value
    return values


def test_10_all_layers_and_heads_as_one_grid_that_opens(tab, url, models):
    model, tokenizer = models["base"]
    truth = patterns_of(model, tokenizer, TEXT)
    L, H, T, _ = truth.shape
    opened(tab, url, f"#look/attention-grid?model=base&text={TEXT.replace(' ', '+')}")
    maps = tab.locator("#figures .small-map")
    assert maps.count() == L * H
    lines = tab.locator("#figures .beside")
    assert lines.count() == L and lines.nth(1).locator(".small-map").count() == H
    masked, weight = tab.evaluate(
        """size => {  // the shades of a masked cell and of the smallest weight of the last row
            const context = document.querySelector(".small-map canvas").getContext("2d");
            const pixels = context.getImageData(0, 0, size, size).data;
            const alpha = (row, column) => pixels[4 * (row * size + column) + 3];
            const last = Array.from({length: size}, (_, column) => alpha(size - 1, column));
            return [alpha(0, size - 1), Math.min(...last)];
        }""",
        T,
    )
    assert masked > 40 and weight < 20 and truth[0, 0, -1].min() < 0.05
    maps.nth(H + 2).click()  # layer 1, head 2
    expect(tab.locator("#view-title")).to_have_text("attention")
    tab.wait_for_url("**layer=1&head=2")
    expect(tab.locator("#figures rect[data-value]").first).to_be_visible()
    shown = cells(tab, 0)
    future = np.triu(np.ones((T, T), dtype=bool), 1)
    assert np.isnan(shown[future]).all()
    np.testing.assert_allclose(shown[~future], truth[1, 2][~future], atol=1e-6)
    np.testing.assert_allclose(np.nansum(shown, axis=1), 1, atol=1e-5)  # each query
    struck = tab.locator("#figures path.masked").get_attribute("d")
    assert struck.count("M") == future.sum()
    tab.hover('[data-source="attention/0/7/4"]')
    out = tab.locator("#figures output").first
    assert float(out.get_attribute("data-value")) == pytest.approx(float(truth[1, 2, 7, 4]), abs=1e-7)
    assert "queries" in out.inner_text() and "keys" in out.inner_text()


def test_11_the_switch_of_orientation_transposes_and_keeps_every_value(tab, url):
    opened(tab, url, f"#look/attention?model=base&text={TEXT.replace(' ', '+')}&layer=0&head=1")
    caption = tab.locator("#figures .heat_map svg text").first
    assert caption.inner_html() == "down: queries · across: keys"
    before = cells(tab, 0)
    expect(tab.locator("label[for=option-keys_as_rows]")).to_be_visible()
    tab.check("#option-keys_as_rows")
    expect(caption).to_have_text("down: keys · across: queries")
    np.testing.assert_array_equal(cells(tab, 0), before.T)
    tab.wait_for_url("**keys_as_rows=true**")
    tab.uncheck("#option-keys_as_rows")
    expect(caption).to_have_text("down: queries · across: keys")
    np.testing.assert_array_equal(cells(tab, 0), before)


def test_12_eight_steps_on_ones_own_text_each_cell_opening_into_its_products(tab, url, models):
    model, tokenizer = models["base"]
    address = f"#look/attention-walkthrough?model=base&text={TEXT.replace(' ', '+')}&layer=1&head=3&position=6&width=24"
    opened(tab, url, address)
    truth = attention_walkthrough(model, tokenizer, TEXT, layer=1, head=3, position=6)
    steps = tab.locator("#figures .step")
    assert steps.count() == 8
    words = ["x", "q, k, v", "q . k", "root", "mask", "softmax", "sum of the values", "W_O"]
    for i, word in enumerate(words):
        expect(steps.nth(i)).to_be_visible()
        assert word in steps.nth(i).locator("p").first.inner_text()
        assert sum(step.is_visible() for step in steps.all()) == 1
        tab.keyboard.press(" " if i % 2 else "ArrowRight")
    expect(steps.nth(7)).to_be_visible()  # the last one stays
    tab.wait_for_url("**step=8**")
    with trace(model, "blocks.1.residual.middle") as seen, torch.no_grad():
        model(torch.tensor([tokenizer.encode(TEXT)]))
    last = steps.nth(7).locator("rect[data-value]")
    shown = torch.tensor([float(cell.get_attribute("data-value")) for cell in last.all()[-24:]])
    torch.testing.assert_close(shown, seen["blocks.1.residual.middle"][0, 6], atol=1e-5, rtol=1e-5)

    def products(step: int) -> tuple[float, float]:
        """The sum of the opened cell's products and their sum as it is shown."""
        table = steps.nth(step).locator("table", has_text="times")
        expect(table).to_be_visible()
        values = [
            float(row.locator("td").last.get_attribute("data-value"))
            for row in table.locator("tbody tr:not(.footer)").all()
        ]
        return sum(values), float(table.locator("tr.footer td").last.get_attribute("data-value"))

    tab.keyboard.press("ArrowLeft")
    steps.nth(6).locator("rect[data-value]").last.click()  # number 5 of the weighted sum
    tab.wait_for_url("**cell=weighted_values%3A5**")
    added, shown_sum = products(6)
    assert added == pytest.approx(shown_sum, abs=1e-6)
    assert shown_sum == pytest.approx(float(truth.weighted_values[-1]), abs=1e-5)
    assert steps.nth(6).is_visible()  # the step stays, and the address has it
    assert "step=7" in tab.url
    for _ in range(4):
        tab.keyboard.press("ArrowLeft")
    row = steps.nth(2).locator("tbody tr").nth(4)
    row.locator("td").nth(1).locator("button").focus()
    tab.keyboard.press("Enter")  # by keyboard too: q . k with the key at 4
    tab.wait_for_url("**cell=dots%3A4**")
    added, shown_sum = products(2)
    assert added == pytest.approx(float(truth.dots[4]), abs=1e-5) == pytest.approx(shown_sum, abs=1e-5)


def test_13_without_a_head_the_top_ten_and_kl_and_on_again_the_same_bits(tab, url, models):
    model, tokenizer = models["base"]

    def distribution(*off: str) -> torch.Tensor:
        with contextlib.ExitStack() as edits, torch.no_grad():
            for part in off:
                layer, head = part.split(".")
                edits.enter_context(ablate(model, f"blocks.{layer}.attention.heads", H=int(head)))
            return model(torch.tensor([tokenizer.encode(TEXT)]))[0, -1].double().softmax(-1)

    opened(tab, url, f"#look/ablation?model=base&text={TEXT.replace(' ', '+')}")
    rows = tab.locator("#figures tbody tr")
    assert rows.count() == 2 * (4 + 1)  # every head and feed-forward of two layers
    whole = distribution()
    for row in rows.all():
        name = row.locator("td").first.inner_text()
        if name.startswith("head:"):
            without = distribution(name.removeprefix("head:"))
            kl = float((whole * (whole / without).log2()).sum())
            assert float(row.locator("td").nth(1).get_attribute("data-value")) == pytest.approx(kl, abs=1e-5)
    assert "all logits are the same to the last bit" in tab.inner_text("#figures")
    rows.filter(has_text="head:1.2").locator("td").first.click()
    expect(tab.locator("#figures h3").first).to_contain_text("without head:1.2")
    without = distribution("1.2")
    for row in tab.locator("#figures tbody tr").all():
        token, *numbers = row.locator("td").all()
        (i,) = tokenizer.encode(token.inner_text().replace("\u2423", " ").replace("\\n", "\n"))
        p, q, change = (float(cell.get_attribute("data-value")) for cell in numbers)
        assert (p, q) == pytest.approx((float(whole[i]), float(without[i])), abs=1e-6)
        assert change == pytest.approx(q - p, abs=1e-6)
    assert tab.locator("#figures tbody tr").count() == 10
    assert "all logits are the same to the last bit" in tab.inner_text("#figures")
    tab.fill("#option-off", "head:0.1\nneuron:1.3\nmlp:0\ntoken:2")
    tab.click("#view-form button[type=submit]")
    expect(tab.locator("#figures h3").first).to_contain_text("without head:0.1, neuron:1.3, mlp:0, token:2")
    tab.fill("#option-off", "")  # all on again: the ranking as it was
    tab.click("#view-form button[type=submit]")
    expect(tab.locator("#figures h3").first).to_contain_text("Which parts matter most")
