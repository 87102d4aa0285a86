"""Watching and changing: names with axes, a bound, edits as computed by hand, and nothing left behind."""

from __future__ import annotations

import pytest
import torch
from toys import GEMMA3, toy_ids, toy_model

from glassformer.errors import UsageError
from glassformer.inspection import ablate, add, edit, patch, scale, tap_names, trace
from glassformer.models import EncoderConfig, build_model
from glassformer.taps import named_taps


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_every_tap_has_axes_of_the_right_sizes(family):
    """B=2 T=7; every letter has one size wherever it occurs."""
    model, sizes = toy_model(family), {}
    with trace(model) as seen:
        model(toy_ids(2, 7))
    assert list(seen) and set(seen) == set(tap_names(model))
    for name, tensor in seen.items():
        axes = seen.axes(name)
        assert "?" not in axes, name
        for letter, size in zip(axes, tensor.shape, strict=True):
            assert sizes.setdefault(letter, size) == size, (name, axes, tuple(tensor.shape))
    c = model.config
    expected = {"B": 2, "T": 7, "S": 7, "C": c.n_embd, "H": c.n_head, "D": c.head_width, "F": c.n_hidden, "V": 61}
    assert sizes == {**expected, "K": c.n_kv_head}


def test_what_is_seen_is_what_the_model_computed():
    model, ids = toy_model(), toy_ids(2, 7)
    with trace(model, "logits", "blocks.1.attention.*") as seen:
        logits = model(ids)
    assert torch.equal(seen["logits"], logits) and not seen["logits"].requires_grad
    q, k = seen["blocks.1.attention.query"], seen["blocks.1.attention.key"]
    scores = q @ k.transpose(-2, -1) / 5**0.5
    scores = scores.masked_fill(torch.ones(7, 7).triu(1).bool(), -torch.inf)
    torch.testing.assert_close(seen["blocks.1.attention.pattern"], scores.softmax(-1), atol=1e-6, rtol=1e-5)
    assert torch.equal(seen.pick("blocks.1.attention.query", B=1, H=2), q[1, 2])
    assert torch.equal(seen.pick("blocks.1.attention.query", T=slice(2, 4)), q[:, :, 2:4])


def test_with_a_cache_every_call_is_kept_and_equals_that_without():
    model, ids = toy_model("modern"), toy_ids(1, 7)
    name = "blocks.1.attention.pattern"
    with trace(model, name) as whole:
        model(ids)
    cache = model.new_cache()
    with trace(model, name) as seen, torch.no_grad():
        for t in range(7):
            model(ids[:, t : t + 1], cache=cache)
    calls = seen.calls(name)
    assert [call.shape[-1] for call in calls] == [1, 2, 3, 4, 5, 6, 7] and seen[name] is calls[-1]
    for t, call in enumerate(calls):
        torch.testing.assert_close(call[:, :, 0], whole[name][:, :, t, : t + 1], atol=1e-6, rtol=1e-5)


def test_an_encoder_decoder_is_seen_in_both_halves():
    from toys import toy_config

    from glassformer.models import EncoderDecoderConfig

    shape = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 15, "n_hidden": 23}
    config = EncoderDecoderConfig(encoder=EncoderConfig.make(**shape), decoder=toy_config(), start_token=0, end_token=1)
    model = build_model(config).eval()
    with trace(model, "*cross_attention.*") as seen:
        model(toy_ids(2, 5), toy_ids(2, 7))
    name = "decoder.blocks.1.cross_attention."
    assert seen.axes(name + "pattern") == "BHTS" and seen[name + "pattern"].shape == (2, 3, 7, 5)
    assert seen.axes(name + "key") == "BKSD" and seen[name + "key"].shape == (2, 3, 5, 5)


def test_a_bound_on_what_is_kept():
    model = toy_model()
    with (
        pytest.raises(UsageError, match=r"watching blocks\..* would keep more than 1,000 bytes"),
        trace(model, "blocks.*", limit_bytes=1000),
    ):
        model(toy_ids(2, 7))
    assert all(tap.listener is None for tap in named_taps(model).values())


def test_unknown_names_axes_and_places_name_what_is_near():
    model = toy_model()
    with (
        pytest.raises(UsageError, match=r"did you mean blocks\.\d\.attention\.pattern"),
        trace(model, "blocks.0.atention.patern"),
    ):
        pass
    with trace(model, "blocks.0.attention.pattern") as seen:
        with pytest.raises(UsageError, match="nothing has passed"):
            seen["blocks.0.attention.pattern"]
        model(toy_ids(1, 3))
    with pytest.raises(UsageError, match="is not watched here"):
        seen["logits"]
    with pytest.raises(UsageError, match="has the axes BHTS and no F"):
        seen.pick("blocks.0.attention.pattern", F=1)
    with pytest.raises(UsageError, match=r"H=3 is out of range; there are 3"):
        seen.pick("blocks.0.attention.pattern", H=3)
    assert "blocks.0.attention.pattern  B=1 H=3 T=3 S=3" in repr(seen)


@pytest.mark.parametrize("family", ["classic", "modern"])
def test_a_head_ablated_is_a_head_whose_output_matrix_is_zero(family):
    model, ids = toy_model(family), toy_ids(2, 7)
    before = model(ids)
    with ablate(model, "blocks.1.attention.heads", H=2):
        ablated = model(ids)
    assert torch.equal(model(ids), before)  # off again: identical
    D = model.config.head_width
    with torch.no_grad():
        model.blocks[1].attention.out.weight[:, 2 * D : 3 * D] = 0
    torch.testing.assert_close(ablated, model(ids), atol=1e-5, rtol=1e-5)
    assert (ablated - before).abs().max() > 0.01


def test_a_neuron_scaled_is_a_column_scaled():
    model, ids = toy_model(), toy_ids(2, 7)
    with scale(model, "blocks.0.feedforward.hidden", 3.0, F=17):
        scaled = model(ids)
    with torch.no_grad():
        model.blocks[0].feedforward.down.weight[:, 17] *= 3
    torch.testing.assert_close(scaled, model(ids), atol=1e-5, rtol=1e-5)


def test_a_patched_stream_makes_another_run_of_this_one():
    """The whole stream after the first block comes from the other text: so do the logits."""
    model, one, other = toy_model(), toy_ids(2, 7), toy_ids(2, 7, seed=1)
    name = "blocks.0.residual.after"
    with trace(model, name, "logits") as seen:
        model(other)
    with patch(model, name, seen[name]):
        torch.testing.assert_close(model(one), seen["logits"])
    with patch(model, name, seen.pick(name, T=6), T=6):
        patched = model(one)
    assert torch.equal(patched[:, :6], model(one)[:, :6])  # the past knows nothing of it
    assert not torch.allclose(patched[:, 6], model(one)[:, 6])
    with pytest.raises(UsageError, match="the patch is"), patch(model, name, torch.zeros(3), T=6):
        model(one)


def test_a_vector_added_is_steering():
    model, ids, v = toy_model(), toy_ids(2, 7), torch.linspace(-1, 1, 15)
    with add(model, "embedding.position", v):
        steered = model(ids)
    with torch.no_grad():
        model.positions.weight += v
    torch.testing.assert_close(steered, model(ids), atol=1e-5, rtol=1e-5)


def test_an_edit_leaves_the_tensor_itself_alone_and_nests():
    model, ids = toy_model(), toy_ids(2, 7)
    with trace(model, "embedding.token") as outer, edit(model, "embedding.token", lambda name, part: part * 2):
        model(ids)
        with trace(model, "embedding.token") as inner:
            model(ids)
    assert torch.equal(inner["embedding.token"], 2 * outer["embedding.token"])
    table = model.embedding.token.weight
    assert torch.equal(outer["embedding.token"], table[ids])


def test_gradients_flow_through_an_edit():
    model, ids = toy_model(), toy_ids(2, 7)
    factor = torch.ones(3, requires_grad=True)
    with edit(model, "blocks.1.attention.heads", lambda name, part: part * factor.view(1, 3, 1, 1)):
        model(ids).logsumexp(-1).sum().backward()
    assert factor.grad is not None and factor.grad.abs().min() > 0


@pytest.mark.parametrize("changes", [{}, GEMMA3])
def test_unwatched_taps_break_no_compiled_graph_and_a_watched_run_is_eager(changes):
    """`fullgraph` fails at the first break; the listener is heard although the model is compiled."""
    model, ids = toy_model("modern", **changes), toy_ids(2, 7)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    with torch.no_grad():
        expected = compiled(ids)
        with trace(model, "blocks.1.attention.pattern") as seen:
            watched = compiled(ids)
        again = compiled(ids)
    assert seen["blocks.1.attention.pattern"].shape == (2, 6, 7, 7)
    torch.testing.assert_close(watched, expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(again, expected)
