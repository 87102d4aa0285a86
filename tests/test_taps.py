"""Taps: named places in a model where one may listen, or put another tensor in."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import toy_ids, toy_model

from glassformer.errors import UsageError
from glassformer.taps import Tap, listening, named_taps


class Doubler(nn.Module):
    """x -> 2 x, with a tap before and after."""

    def __init__(self):
        super().__init__()
        self.tap_in, self.tap_out = Tap("in"), Tap("out")

    def forward(self, x):
        return self.tap_out(2 * self.tap_in(x))


def test_taps_have_the_names_one_would_guess():
    names = list(named_taps(toy_model(n_layer=2)))
    per_block = [
        *(f"attention.{n}" for n in ("query", "key", "value", "scores", "pattern", "heads", "output")),
        *(f"feedforward.{n}" for n in ("hidden", "output")),
        *(f"residual.{n}" for n in ("before", "middle", "after")),
    ]
    expected = {"embedding.token", "embedding.position", "final.norm", "logits"}
    expected |= {f"blocks.{layer}.{n}" for layer in (0, 1) for n in per_block}
    assert set(names) == expected and len(names) == len(expected)


def test_listening_hears_every_match_in_the_order_of_the_computation():
    model, heard = toy_model(n_layer=2), []
    with listening(model, "blocks.*.residual.*", lambda name, x: heard.append((name, tuple(x.shape)))) as names:
        model(toy_ids(2, 7))
    order = [f"blocks.{layer}.residual.{where}" for layer in (0, 1) for where in ("before", "middle", "after")]
    assert heard == [(name, (2, 7, 15)) for name in order]
    assert set(names) == set(order)


def test_shapes_at_the_taps_of_grouped_attention():
    """B=2 T=7 H=6 K=2 D=10 C=42 F=29 V=61"""
    model, shapes = toy_model("modern"), {}
    with listening(model, "*", lambda name, x: shapes.update({name: tuple(x.shape)})):
        model(toy_ids(2, 7))
    here = "blocks.1.attention."
    assert shapes[here + "query"] == shapes[here + "heads"] == (2, 6, 7, 10)
    assert shapes[here + "key"] == shapes[here + "value"] == (2, 2, 7, 10)
    assert shapes[here + "scores"] == shapes[here + "pattern"] == (2, 6, 7, 7)
    assert shapes[here + "output"] == shapes["final.norm"] == (2, 7, 42)
    assert shapes["blocks.1.feedforward.hidden"] == (2, 7, 29)
    assert shapes["logits"] == (2, 7, 61)


def test_patching_the_residual_stream_changes_the_outcome_as_computed_by_hand():
    """Zeros at the end of the stream: the final norm of zero is its bias, so all positions agree."""
    model = toy_model()
    with listening(model, "blocks.1.residual.after", lambda name, x: torch.zeros_like(x)):
        logits = model(toy_ids(2, 7))
    expected = model.head(model.final_norm.bias)
    torch.testing.assert_close(logits, expected.expand(2, 7, -1))


def test_listeners_come_off_with_the_block_also_when_it_fails():
    model = Doubler()
    with pytest.raises(ZeroDivisionError), listening(model, "*", lambda name, x: x + 1):
        assert model(torch.ones(1)).item() == 5  # (1 + 1) * 2 + 1
        1 / 0  # noqa: B018
    assert all(tap.listener is None for tap in named_taps(model).values())
    assert model(torch.ones(1)).item() == 2


def test_nested_listeners_are_all_heard_outer_first():
    """Looking at attention while somebody else ablates a head must not switch either off."""
    model, heard = Doubler(), []
    with listening(model, "out", lambda name, x: x * 10):
        with listening(model, "out", lambda name, x: heard.append(x.item())):
            assert model(torch.ones(1)).item() == 20
        with listening(model, "out", lambda name, x: x + 1):
            assert model(torch.ones(1)).item() == 21
        assert model(torch.ones(1)).item() == 20
    assert heard == [20] and model(torch.ones(1)).item() == 2


def test_a_listener_sees_the_tensor_and_may_put_another_in_its_place():
    tap, x, heard = Tap("pattern"), torch.ones(2), []
    assert tap(x) is x and repr(tap) == "Tap('pattern')"
    tap.listener = heard.append  # returns None: the tensor stays
    assert tap(x) is x and heard == [x] and repr(tap) == "Tap('pattern', listened to)"
    tap.listener = lambda x: x + 1
    assert tap(x).tolist() == [2, 2]


def test_an_unknown_tap_is_named_with_the_nearest_one():
    with pytest.raises(UsageError, match="'logit'; did you mean logits"), listening(toy_model(), "logit", print):
        pass
