"""The glass box, behaviours 14 to 17: the logit lens, attribution, the residual stream, every tensor."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from playwright.sync_api import expect
from test_glass_box_attention import cells
from test_look_inside import opened

from glassformer.inspection import tap_names, trace

TEXT = "the quick fox"
ADDRESS = f"model=base&text={TEXT.replace(' ', '+')}"


def seen_of(model: Any, tokenizer: Any) -> dict[str, torch.Tensor]:
    """What passes every tap, and the logits."""
    with trace(model) as seen, torch.no_grad():
        logits = model(torch.tensor([tokenizer.encode(TEXT)]))
    return {**seen, "output": logits}


def column(tab: Any, table: str, c: int) -> list[float]:
    rows = tab.locator(table).locator("tbody tr:not(.footer)").all()
    return [float(row.locator("td").nth(c).get_attribute("data-value")) for row in rows]


def test_14_the_logit_lens_follows_a_pinned_token_and_ends_in_the_output(tab, url, models):
    model, tokenizer = models["base"]
    seen = seen_of(model, tokenizer)
    opened(tab, url, f"#look/lens?{ADDRESS}&pin=q&position=4")
    (q,) = tokenizer.encode("q")
    streams = [seen["blocks.0.residual.before"], seen["blocks.0.residual.after"], seen["blocks.1.residual.after"]]
    with torch.no_grad():
        p = torch.stack([model.logits(model.final_norm(x))[0, 4].softmax(-1) for x in streams])
    torch.testing.assert_close(p[-1], seen["output"][0, 4].softmax(-1))  # the last row is the output
    table = "#figures section.table >> nth=0"
    np.testing.assert_allclose(column(tab, table, 2), p.max(dim=-1).values, atol=1e-6)
    assert column(tab, table, 6) == [1 + int((row > row[q]).sum()) for row in p]  # the rank of q, layer by layer
    line = tab.locator("#figures g.curve polyline").first.get_attribute("data-values")
    np.testing.assert_allclose([float(v) for v in line.split()], p[:, q], atol=1e-6)
    notes = " ".join(tab.locator("#figures .note").all_inner_texts())
    assert "Early layers were not trained for this: take them as hints." in notes
    assert "The last row is the model's prediction." in notes
    grid = tab.locator("#figures section.table").nth(1)  # places go down, layers across
    best = [tokenizer.token_text(int(i)) for i in seen["output"][0].argmax(dim=-1)]
    assert [
        row.locator("td").last.inner_text().replace("\u2423", " ") for row in grid.locator("tbody tr").all()
    ] == best
    grid.locator("tbody tr").nth(9).locator("button").last.click()
    tab.wait_for_url("**position=9**")
    expect(tab.locator("#figures .note").first).to_contain_text("after ' '")


def test_15_direct_logit_attribution_adds_up(tab, url, models):
    model, tokenizer = models["base"]
    logits = seen_of(model, tokenizer)["output"][0, -1]
    (q,) = tokenizer.encode("q")
    opened(tab, url, f"#look/attribution?{ADDRESS}&token=q&check=0")
    tables = tab.locator("#figures section.table")
    parts = column(tab, "#figures section.table >> nth=0", 1)  # embedding, all heads, feed-forwards, biases
    assert sum(parts) == pytest.approx(float(logits[q]), abs=1e-4)
    total, own, difference = [float(cell.get_attribute("data-value")) for cell in tables.nth(1).locator("td").all()]
    assert own == pytest.approx(float(logits[q]), abs=1e-4) and abs(difference) < 1e-4
    assert sum(parts) == pytest.approx(total, abs=1e-6)
    rows = tables.nth(2).locator("tbody tr").all()  # block by block: attention and feed-forward
    values = [float(cell.get_attribute("data-value")) for row in rows for cell in row.locator("td.n").all()]
    heads = sum(column(tab, "#figures section.table >> nth=3", 1))  # all eight heads are shown
    kinds = dict(zip(tables.nth(0).locator("td:first-child").all_inner_texts(), parts, strict=True))
    assert heads == pytest.approx(kinds["all heads of attention"], abs=1e-5)
    assert sum(values) == pytest.approx(heads + kinds["all feed-forwards"], abs=1e-5)
    assert "the final norm is frozen" in tab.inner_text("#figures")


def test_16_the_residual_stream_at_every_place_leads_to_lens_and_steps(tab, url, models):
    model, tokenizer = models["base"]
    seen = seen_of(model, tokenizer)
    stream = torch.stack(
        [seen["blocks.0.residual.before"][0], *(seen[f"blocks.{i}.residual.after"][0] for i in (0, 1))]
    )
    opened(tab, url, f"#look/residual?{ADDRESS}")
    np.testing.assert_allclose(cells(tab, 3, "residual"), stream.norm(dim=-1), rtol=1e-5)
    np.testing.assert_allclose(cells(tab, 5, "residual"), F.cosine_similarity(stream, stream[-1:], dim=-1), atol=1e-5)
    for figure, kind in ((6, "attention"), (7, "feedforward")):
        added = torch.stack([seen[f"blocks.{i}.{kind}.output"][0].norm(dim=-1) for i in (0, 1)])
        np.testing.assert_allclose(cells(tab, figure, "residual"), added / stream[:-1].norm(dim=-1), rtol=1e-4)
    tab.click('[data-source="residual/6/1/7"]')  # what attention adds: to its steps
    tab.wait_for_url("**look/attention-walkthrough?**layer=1&position=7**")
    expect(tab.locator("#figures .step").first).to_be_visible()
    tab.go_back()
    expect(tab.locator("#view-title")).to_have_text("residual")
    tab.click('[data-source="residual/5/1/3"]')  # the stream: to the lens
    tab.wait_for_url("**look/lens?**position=3**")
    expect(tab.locator("#figures .note").first).to_contain_text("after ' '")


def test_17_every_tensor_of_a_pass_is_listed_found_and_drawn(tab, url, models):
    model, tokenizer = models["base"]
    seen = seen_of(model, tokenizer)
    opened(tab, url, f"#look/activations?{ADDRESS}")
    rows = tab.locator("#figures tbody tr")
    assert rows.count() == len(tap_names(model))
    for row in rows.all():
        name, shape, *numbers, spark = row.locator("td").all()
        x = seen[name.inner_text()]
        finite = x[x.isfinite()]
        assert shape.inner_text().split(" ")[1] == ",".join(map(str, x.shape))
        assert len(shape.inner_text().split(" ")[0]) == x.dim()
        shown = [float(number.get_attribute("data-value")) for number in numbers]
        assert shown == pytest.approx([float(finite.min()), float(finite.mean()), float(finite.max())], abs=1e-5)
        assert len(spark.inner_text()) == 12
    assert "float32" in tab.inner_text("#figures")
    tab.fill("#figures .table-filter", "attention.pattern")
    visible = [row for row in rows.all() if row.is_visible()]
    assert len(visible) == 2
    visible[1].locator("button").click()
    tab.wait_for_url("**pattern=blocks.1.attention.pattern")
    truth = seen["blocks.1.attention.pattern"][0].reshape(-1, len(TEXT))
    assert truth.numel() <= 1024
    np.testing.assert_allclose(cells(tab, 2, "activations"), truth, atol=1e-6)
    shares = column(tab, "#figures section.table >> nth=1", 2)
    assert sum(shares) == pytest.approx(1) and math.isclose(len(shares), 24)
    opened(tab, url, "#look/tensors?model=base&pattern=blocks.0.attention.out.weight")  # the weights too
    weight = model.blocks[0].attention.out.weight.detach()
    picture = tab.locator("#figures section.heat_map").last
    expect(picture).to_be_visible()
    corner = [float(cell.get_attribute("data-value")) for cell in picture.locator("rect[data-value]").all()]
    np.testing.assert_allclose(corner, weight[:8, :8].flatten() if len(corner) == 64 else weight.flatten(), atol=1e-6)
