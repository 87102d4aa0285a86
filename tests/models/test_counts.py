"""Parameters by part and operations a token, against PyTorch's own counter and published tallies."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from toys import toy_config, toy_ids

from glassformer.models import SIZES, Decoder, ModelConfig, flops_per_token, parameters_by_part
from glassformer.models.counts import model_on_meta


def test_parts_of_a_model_small_enough_to_count_by_hand():
    """Width 15, hidden 23, three heads of 5, two layers, a tied head, biases everywhere."""
    assert parameters_by_part(toy_config("classic")) == {
        "embedding": 61 * 15,
        "positions": 13 * 15,
        "query": 2 * 15 * 15,
        "key": 2 * 15 * 15,
        "value": 2 * 15 * 15,
        "output": 2 * 15 * 15,
        "up": 2 * 15 * 23,
        "down": 2 * 23 * 15,
        "norms": 5 * 15,
        "biases": 2 * (3 * 15 + 15 + 23 + 15) + 5 * 15,
    }  # the biases of the norms stand with the biases


def test_gpt_3_in_eight_categories():
    """3Blue1Brown's tally, which has no biases, norms and positions."""
    parts = parameters_by_part(ModelConfig.make(**SIZES["gpt3"], bias=False, tied_head=False))
    shown = {part: size for part, size in parts.items() if part not in ("positions", "norms")}
    assert shown == {
        "embedding": 617_558_016,
        "query": 14_495_514_624,
        "key": 14_495_514_624,
        "value": 14_495_514_624,
        "output": 14_495_514_624,
        "up": 57_982_058_496,
        "down": 57_982_058_496,
        "unembedding": 617_558_016,
    }
    assert sum(shown.values()) == 175_181_291_520


@pytest.mark.parametrize("family", ["classic", "modern"])
@pytest.mark.parametrize(
    "changes", [{"tied_head": True}, {"tied_head": False}, {"n_expert": 5, "n_expert_active": 2}], ids=str
)
def test_operations_are_those_that_pytorch_counts(family: str, changes: dict):
    """`FlopCounterMode` watches the products of a real forward pass; explicit attention hides none of them."""
    model, (B, T) = Decoder(toy_config(family, **changes)), (3, 11)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(toy_ids(B, T))
    forward, training = flops_per_token(model.config, T)
    assert counter.get_total_flops() == B * T * forward
    with FlopCounterMode(display=False) as counter:
        model(toy_ids(B, T)).sum().backward()
    assert counter.get_total_flops() == B * T * training == 3 * B * T * forward


def test_palm_s_formula_for_gpt_2():
    """6 N + 12 L H D T with N = 123,532,032: 124,439,808 parameters less positions, norms and biases; the token table
    counts once, as the tied head."""
    config = ModelConfig.make(**SIZES["gpt2"])
    n = 124_439_808 - 1024 * 768 - 25 * 2 * 768 - 12 * (3 * 768 + 768 + 4 * 768 + 768)
    assert flops_per_token(config).training == 6 * n + 12 * 12 * 768 * 1024
    assert flops_per_token(config, 512).training == 6 * n + 12 * 12 * 768 * 512


def test_counting_takes_no_memory_and_draws_nothing():
    """Norms too: those of a thousand layers of a million channels would take 16 GB."""
    before = torch.get_rng_state()
    assert all(parameter.is_meta for parameter in model_on_meta(toy_config("modern")).parameters())
    parts = parameters_by_part(ModelConfig.make(**{**SIZES["gpt3"], "n_layer": 95}))  # 700 GB if it were built
    assert sum(parts.values()) > 170e9 and torch.equal(torch.get_rng_state(), before)
