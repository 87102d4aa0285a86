"""One head, number by number: every stage against a computation from the weights alone, and every sum of its parts."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from heads_by_hand import CASES, TEXT, TOKENIZER, case
from stacks import patches
from toys import toy_model

from glassformer.errors import UsageError
from glassformer.figures import ROLES, shade
from glassformer.inspection import attention_walkthrough, trace
from glassformer.inspection.opened_cell import OPENERS
from glassformer.layers import int8_copy

CLOSE = {"atol": 1e-5, "rtol": 1e-5}


def close(mine, theirs):
    np.testing.assert_allclose(mine, torch.as_tensor(theirs).detach().numpy(), **CLOSE)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_stage_is_what_the_weights_give(name: str):
    """The first and the last layer, the last head (of another group than the first), two queries."""
    at = case(name)
    for layer, position in ((0, 4), (at.stack.config.n_layer - 1, -1)):
        theirs = at.by_hand(layer)
        view = attention_walkthrough(at.model, TOKENIZER, TEXT, layer=layer, head=-1, position=position, **at.asked)
        h = at.stack.config.n_head - 1
        parts = {stage: x[h] for stage, x in theirs.parts.items() if stage != "may"}
        for stage in ("key_plain", "key", "value"):
            close(getattr(view, stage), parts[stage])
        for stage in ("query_plain", "query", "dots", "scaled", "scores", "weights", "weighted_values", "head_output"):
            close(getattr(view, stage), parts[stage][position])
        assert view.visible.tolist() == theirs.parts["may"][position].tolist()
        close(view.normed, theirs.x[position])
        close(view.output_by_head, theirs.parts["head_output"][:, position])
        close(view.output, theirs.output[position])
        assert max(view.differences.values()) < 2e-5, view.differences
        assert set(view.differences) >= {"query", "key", "value", "scores", "weights", "weighted_values", "output"}


@pytest.mark.parametrize("name", [n for n in CASES if "cross" not in n])
@torch.no_grad()
def test_the_stream_behind_it_is_what_the_feedforward_of_the_block_is_given(name: str):
    at = case(name)
    block, held = at.stack.blocks[0], {}
    following = block.cross_norm if block.crosses and at.kind != "encoder" else block.feedforward_norm
    if at.stack.config.norm_place in ("post", "output"):
        following = block.cross_attention if block.crosses else block.feedforward
    if at.stack.config.parallel:  # nothing reads it before the feed-forward has added its part
        with trace(at.model, "blocks.0.residual.middle") as held:
            at.run()
        held = {"x": held["blocks.0.residual.middle"][0]}
    else:
        hook = following.register_forward_pre_hook(lambda _, args: held.update(x=args[0][0]))
        at.run()
        hook.remove()
    view = attention_walkthrough(at.model, TOKENIZER, TEXT, layer=0, head=1, position=3, **at.asked)
    close(view.after, held["x"][3])


def test_what_is_left_of_a_row_falls_on_the_sink():
    at = case("capped, sinks")
    view = attention_walkthrough(at.model, TOKENIZER, TEXT, layer=0, head=4)
    assert view.sink == float(at.model.blocks[0].attention.sinks[4].detach())
    assert 0.001 < view.sink_share < 1 and view.weights.sum() + view.sink_share == pytest.approx(1, abs=1e-6)
    assert "falls on the sink" in str(view) and "<sink>" in str(view) and "cap 1.7" in str(view)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_every_cell_opens_into_products_that_add_up_to_it(name: str):
    """Of every stage that this model has, at a key and a number that are not the first."""
    at = case(name)

    def walk(cell: str | None = None):
        return attention_walkthrough(at.model, TOKENIZER, TEXT, layer=0, head=1, position=3, cell=cell, **at.asked)

    plain, opened = walk(), 0
    for stage, (_, n_places) in OPENERS.items():
        if stage.endswith("normed") and stage != "normed" and not plain.has_query_norm:
            continue
        for places in ([2, 1], [0, 4]) if n_places == 2 else ([1], [2]):
            values = plain.weights[:, None] * plain.value if stage == "weighted" else getattr(plain, stage)
            cell = walk(":".join(map(str, [stage, *places]))).opened
            assert cell.value == pytest.approx(float(values[tuple(places)]), abs=1e-6)
            assert cell.total == pytest.approx(cell.value, abs=2e-5), cell.cell
            n = {"dots": len(plain.query), "weighted_values": len(plain.keys)}.get(stage)
            assert n is None or len(cell.left) == n
            opened += 1
    assert opened >= 28


@pytest.mark.parametrize(
    ("cell", "words"),
    [("kye:1:2", "key"), ("key:1", "key:KEY:NUMBER"), ("dots:99", "number=99"), ("sum:x", "sum:NUMBER")],
)
def test_a_cell_that_does_not_exist_is_refused(cell: str, words: str):
    with pytest.raises(UsageError, match=words):
        attention_walkthrough(toy_model(), TOKENIZER, TEXT, cell=cell)


def test_images_are_asked_by_patches():
    image = torch.linspace(-1, 1, 72).view(2, 6, 6)
    view = attention_walkthrough(patches(), None, image, layer=1, head=0, position=0)
    assert view.keys == ["<class>", "0,0", "0,1", "1,0", "1,1"]
    assert max(view.differences.values()) < 2e-5 and view.weights.sum() == pytest.approx(1)


@torch.no_grad()
def test_weights_of_8_bits_are_shown_as_the_numbers_they_stand_for():
    model = toy_model("modern", n_embd=64)  # rows of 64 go through the kernel that rounds
    view = attention_walkthrough(int8_copy(model), TOKENIZER, TEXT, layer=0, head=3)
    D, row = 10, 3 * 10
    small = int8_copy(model).blocks[0].attention.qkv
    weight = (small.weight.float() * small.scale[:, None])[row : row + D]
    close(view.query_plain, weight @ torch.from_numpy(view.normed))
    assert 1e-3 < max(view.differences.values()) < 0.5
    assert "were rounded on the way" in " ".join(str(view).split())
    assert "were rounded" not in str(attention_walkthrough(model, TOKENIZER, TEXT, layer=0, head=3))


def test_a_difference_is_noticed():
    """The comparison with the model's own tensors is no empty word: rotate the keys wrongly, and it tells."""
    at = case("modern")
    real = at.model.positions.rotate
    calls = []

    def wrongly(q, k, pos):
        calls.append(pos)
        return real(q, k, pos + 1) if q.shape[1] == 1 else real(q, k, pos)

    at.model.positions.rotate = wrongly
    view = attention_walkthrough(at.model, TOKENIZER, TEXT, layer=0, head=0)
    assert view.differences["key"] > 0.1 and view.differences["query"] > 0.1 and view.differences["value"] < 1e-5


def test_more_and_less_than_nothing_differ_in_colour_for_every_role():
    for role in ROLES:
        assert shade(role, 1.0) != shade(role, -1.0)
    view = attention_walkthrough(toy_model(), TOKENIZER, TEXT, layer=0, head=0)
    drawn = [f for f in view.figures() if getattr(f, "role", "") == "value"]
    assert len(drawn) == 2  # values, and shares of them
    page = view.to_html()
    assert f"rgba{shade('value', 1.0)}"[:-1].replace(" ", "") in page
    assert f"rgba{shade('value', -1.0)}"[:-1].replace(" ", "") in page


def test_only_the_keys_it_looks_at_most_are_drawn_of_many():
    view = attention_walkthrough(toy_model(block_size=40), TOKENIZER, "ab Z" * 9, layer=0, head=0)
    table = next(f for f in view.figures() if getattr(f, "title", "").startswith("How well"))
    assert len(table.rows) == 12
    assert min(row[-1] for row in table.rows) >= np.sort(view.weights)[-12] - 1e-9
    assert "12 keys with the largest weights" in str(view).replace(" \n", " ")
    sums = next(f for f in view.figures() if getattr(f, "title", "").startswith("Weight times"))
    np.testing.assert_allclose(sums.values[:-1].sum(axis=0), sums.values[-1], atol=1e-5)
