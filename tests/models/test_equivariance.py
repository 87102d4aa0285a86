"""Attention is about sets: without positions an encoder cannot know in which order its tokens came."""

from __future__ import annotations

import pytest
import torch
from toys import shaken, toy_ids

from glassformer.layers import POSITIONS
from glassformer.models import Encoder, EncoderConfig


def shuffled_both_ways(positions: str) -> tuple[torch.Tensor, torch.Tensor]:
    """The vectors of some tokens, shuffled; and the vectors of the shuffled tokens. (B, T, C) each."""
    shape = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 18, "n_hidden": 23}
    model = shaken(Encoder(EncoderConfig.make(positions=positions, **shape))).eval()
    ids_BT = toy_ids(2, 11)
    order_T = torch.randperm(11, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model(ids_BT)[:, order_T], model(ids_BT[:, order_T])


def test_without_positions_shuffled_tokens_give_the_same_vectors_shuffled():
    torch.testing.assert_close(*shuffled_both_ways("none"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("positions", [kind for kind in POSITIONS if kind != "none"])
def test_every_kind_of_positions_encodes_the_order(positions: str):
    a, b = shuffled_both_ways(positions)
    assert (a - b).abs().amax(dim=-1).min() > 1e-3  # for every token
