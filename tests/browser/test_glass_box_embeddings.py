"""The glass box, behaviours 18 to 21: neighbours and analogies, directions, the vocabulary in 3-D, the tally."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("fastapi", reason="needs the extra serve")
pytest.importorskip("playwright", reason="needs the package playwright")

from playwright.sync_api import expect
from served import running
from test_glass_box_layers import column
from test_look_inside import opened

from glassformer.inspection import parameters
from glassformer.models import Decoder, ModelConfig
from glassformer.processors.tokenizers import build_tokenizer

WORDS = 50_257


def unit_of(model: Any) -> torch.Tensor:
    table = model.embedding.token.weight.detach()
    return table / table.norm(dim=1, keepdim=True)


def token(tab_text: str) -> str:
    return tab_text.replace("\u2423", " ").replace("\\n", "\n")


def test_18_neighbours_and_analogies_with_true_ranks_flattering_or_not(tab, url, models):
    model, tokenizer = models["base"]
    unit = unit_of(model)[: tokenizer.vocab_size]
    (a,) = tokenizer.encode("a")
    opened(tab, url, "#look/neighbours?model=base&word=a")
    cosines = unit @ unit[a]
    cosines[a] = -2
    best = cosines.topk(10)
    shown = [token(cell) for cell in tab.locator("#figures tbody td:first-child").all_inner_texts()]
    assert shown == [tokenizer.token_text(int(i)).replace("\\n", "\n") for i in best.indices]
    np.testing.assert_allclose(column(tab, "#figures section.table", 1), best.values, atol=1e-6)
    a, c, d, e = (tokenizer.encode(letter)[0] for letter in "acde")
    opened(tab, url, "#look/analogy?model=base&a=a&b=c&c=d&expected=e")
    near = unit @ torch.nn.functional.normalize(unit[a] - unit[c] + unit[d], dim=0)
    among_all = 1 + int((near > near[e]).sum())
    without = among_all - int((near[[a, c, d]] > near[e]).sum())
    note = tab.inner_text("#figures .note")
    assert f"'e' is number {among_all} of all words, {without} without the three." in note
    assert ("It comes first only because" in note) == (without == 1 < among_all)
    np.testing.assert_allclose(column(tab, "#figures section.table", 1), near.topk(10).values, atol=1e-6)


def test_19_a_direction_of_several_pairs_with_a_held_out_score_and_a_random_baseline(tab, url, models):
    model, tokenizer = models["base"]
    table = model.embedding.token.weight.detach()
    pairs = ["a:c", "d:e", "f:g"]
    along = ["r", "s", "t", "u"]
    query = "&".join([*(f"pairs%5B%5D={pair}" for pair in pairs), *(f"along%5B%5D={word}" for word in along)])
    opened(tab, url, f"#look/direction?model=base&{query}")
    steps = torch.stack(
        [table[tokenizer.encode(b)[0]] - table[tokenizer.encode(a)[0]] for a, b in (p.split(":") for p in pairs)]
    )
    held_out = []
    for i in range(3):
        others = torch.cat([steps[:i], steps[i + 1 :]]).mean(dim=0)
        held_out.append(float(steps[i] @ others / others.norm()))
    np.testing.assert_allclose(column(tab, "#figures section.table >> nth=0", 2), held_out, atol=1e-5)
    note = tab.inner_text("#figures .note")
    right = 100 * sum(step > 0 for step in held_out) / 3
    assert note.startswith(f"{right:.1f} %" if right else "0 %") and "Random pairs: " in note
    unit = steps.mean(dim=0) / steps.mean(dim=0).norm()
    truth = sorted((float(table[tokenizer.encode(word)[0]] @ unit), word) for word in along)
    np.testing.assert_allclose(column(tab, "#figures section.table >> nth=1", 1), [v for v, _ in truth], atol=1e-5)
    line = tab.locator("#figures section.points canvas")  # the same on a number line
    expect(line).to_be_visible()
    line.focus()
    for value, word in truth:
        tab.keyboard.press("n")
        out = tab.locator("#figures section.points output")
        assert out.inner_text().startswith(f"{word}: along the direction")
        assert float(out.get_attribute("data-value").split(" ")[0]) == pytest.approx(value, abs=1e-5)


@pytest.fixture(scope="module")
def large():
    """A model of 50,257 words."""
    tokenizer = build_tokenizer("words", [" ".join(f"w{i}" for i in range(WORDS - 1))])
    torch.manual_seed(0)
    config = ModelConfig.make(vocab_size=tokenizer.vocab_size, block_size=8, n_layer=1, n_head=1, n_embd=8)
    model = Decoder(config).eval()
    with torch.no_grad():
        model.embedding.token.weight.copy_(torch.randn_like(model.embedding.token.weight) * torch.arange(8, 0, -1))
    with running({"large": (model, tokenizer)}) as address:
        yield address, model, tokenizer


def test_20_the_whole_vocabulary_in_three_dimensions(tab, large):
    url, model, tokenizer = large
    tab.add_init_script(  # without WebGL
        "const real = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        "  return kind.startsWith('webgl') ? null : real.call(this, kind, ...rest); };"
    )
    opened(tab, url, "#look/vocabulary?model=large&ends=3")
    canvas = tab.locator("#figures .points canvas")
    n = int(canvas.get_attribute("data-points"))
    assert n >= WORDS - 2
    table = model.embedding.token.weight.detach().double()
    special = set(tokenizer.special_tokens.values())
    x = table[[i for i in range(tokenizer.vocab_size) if i not in special]]
    x = x - x.mean(dim=0)
    variances = torch.linalg.eigvalsh(x.T @ x).flip(0)
    shares = (variances / variances.sum())[:3].tolist()
    np.testing.assert_allclose(column(tab, "#figures section.table", 1), shares, atol=1e-6)
    assert f"{100 * sum(shares):.1f} % of their variance" in tab.inner_text("#figures .note")

    def pixels() -> str:
        return tab.evaluate("() => document.querySelector('#figures .points canvas').toDataURL()")

    def drawn() -> int:
        return int(canvas.get_attribute("data-frames") or 0)

    tab.wait_for_function("() => document.querySelector('#figures .points canvas').dataset.frames > 0")
    first = pixels()
    canvas.focus()
    tab.keyboard.press("ArrowLeft")
    tab.wait_for_function("n => document.querySelector('#figures .points canvas').dataset.frames > n", arg=drawn() - 1)
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    by_key = pixels()
    assert by_key != first
    box = canvas.bounding_box()
    tab.mouse.move(box["x"] + 200, box["y"] + 200)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 320, box["y"] + 240, steps=3)
    tab.mouse.up()
    tab.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert pixels() != by_key
    tab.fill("#figures .cloud-search", "w4321")
    out = tab.locator("#figures .points output")
    expect(out).to_contain_text("w4321: component 1")
    assert tab.inner_text("#figures .points [role=status]") == "11 found"  # and w43210 to w43219
    row = int(out.get_attribute("data-source").split("/")[-1])
    place = [float(v) for v in out.get_attribute("data-value").split(" ")]
    assert tokenizer.token_text([i for i in range(tokenizer.vocab_size) if i not in special][row]).strip() == "w4321"
    assert np.linalg.norm(place) <= float(x[row].norm()) + 1e-3
    directions = torch.linalg.eigh(x.T @ x).eigenvectors.flip(1)[:, :3]
    np.testing.assert_allclose(np.abs(place), (x[row] @ directions).abs(), atol=1e-3)
    before = drawn()
    tab.click("#figures .points button")  # Rotate
    tab.wait_for_function("n => document.querySelector('#figures .points canvas').dataset.frames > n + 20", arg=before)
    assert "ms a frame" in tab.inner_text("#figures .cloud-time") and float(canvas.get_attribute("data-frame-ms")) > 0
    tab.click("#figures .points button")


def test_21_the_tally_of_parameters_with_sliders_and_gpt3(tab, url, models):
    model, _ = models["base"]

    def rows() -> dict[str, list[int | None]]:
        found = {}
        for row in tab.locator("#figures section.table").first.locator("tbody tr").all():
            name, *cells = row.locator("td").all()
            numbers = [cell.get_attribute("data-value") for cell in cells[:2]]
            found[name.inner_text()] = [None if value is None else int(float(value)) for value in numbers]
        return found

    opened(tab, url, "#look/parameters?model=base")
    tally = rows()
    lecture = ["embedding", "key", "query", "value", "output", "up-projection", "down-projection", "unembedding"]
    assert list(tally)[:8] == lecture and "norms" in tally
    assert tally["all parameters"][1] == sum(p.numel() for p in model.parameters())
    inside = [
        values[1] for name, values in tally.items() if name not in ("the lecture's eight kinds", "all parameters")
    ]
    assert sum(inside) == tally["all parameters"][1]
    layers = tab.locator("#option-n_layer + input[type=range]")
    expect(layers).to_have_value("2")  # the model's own
    layers.focus()
    tab.keyboard.press("ArrowRight")
    expect(tab.locator("#figures h3").first).to_contain_text("n_layer=3")
    wanted = parameters(model.config.model_copy(update={"n_layer": 3}))
    assert rows()["all parameters"][1] == wanted.total
    tab.fill("#option-n_layer", "")
    tab.select_option("#option-size", "gpt3")
    expect(tab.locator("#figures h3").first).to_contain_text("gpt3:")
    assert rows()["the lecture's eight kinds"] == [27_938, 175_181_291_520]
    expect(tab.locator("#option-n_embd + input[type=range]")).to_have_value("12288")
    expect(tab.locator("#option-n_head + input[type=range]")).to_have_value("96")
    tab.locator("#option-n_embd + input[type=range]").fill("6144")  # half the width: a quarter of the matrices
    expect(tab.locator("#figures h3").first).to_contain_text("n_embd=6,144")
    half = rows()
    assert half["key"][1] == 14_495_514_624 // 4 and half["embedding"][1] == 617_558_016 // 2
    assert "175,181,291,520" not in tab.inner_text("#figures")
