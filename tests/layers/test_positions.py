"""Positions: learned ones are added, rotary ones turn pairs of channels."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from glassformer.errors import UsageError
from glassformer.layers import POSITIONS, LearnedPositions, NoPositions, RotaryPositions


def turned(x: list[float], at: int, base: float = 10_000.0) -> list[float]:
    """One vector, turned as the query at one position."""
    rotary = RotaryPositions(head_width=len(x), block_size=at + 1, rotary_base=base)
    q = torch.tensor(x, dtype=torch.float32).view(1, 1, 1, -1)
    return rotary.rotate(q, q, torch.tensor([at]))[0].flatten().tolist()


def test_rotation_by_hand():
    """Width 4 and base 100: pair (0, 2) turns by 1 radian a position, pair (1, 3) by 1/10."""
    cos, sin = math.cos, math.sin
    assert turned([1, 0, 0, 0], at=0) == [1, 0, 0, 0]
    assert turned([1, 0, 0, 0], 3, 100) == pytest.approx([cos(3), 0, sin(3), 0], abs=1e-6)
    assert turned([0, 0, 1, 0], 3, 100) == pytest.approx([-sin(3), 0, cos(3), 0], abs=1e-6)
    assert turned([0, 1, 0, 0], 3, 100) == pytest.approx([0, cos(0.3), 0, sin(0.3)], abs=1e-6)


@given(m=st.integers(0, 40), n=st.integers(0, 40), shift=st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_a_score_depends_on_the_distance_alone(m: int, n: int, shift: int):
    """q at m times k at n is the same when both move by the same way: eq. 34 of the paper, and why it works."""
    rotary = RotaryPositions(head_width=6, block_size=81)
    q, k = torch.randn(2, 1, 1, 1, 6, generator=torch.Generator().manual_seed(3))

    def score(at_q: int, at_k: int) -> torch.Tensor:
        return (rotary.rotate(q, q, torch.tensor([at_q]))[0] * rotary.rotate(k, k, torch.tensor([at_k]))[1]).sum()

    torch.testing.assert_close(score(m, n), score(m + shift, n + shift), rtol=1e-4, atol=1e-5)


def test_lengths_are_kept():
    x = torch.randn(2, 3, 7, 10, generator=torch.Generator().manual_seed(0))
    q, k = RotaryPositions(head_width=10, block_size=7).rotate(x, 2 * x, torch.arange(7))
    torch.testing.assert_close(q.norm(dim=-1), x.norm(dim=-1))
    torch.testing.assert_close(k.norm(dim=-1), 2 * x.norm(dim=-1))
    assert not torch.allclose(q[:, :, 6], x[:, :, 6])


@pytest.mark.parametrize("base", [10_000.0, 1_000_000.0])
def test_equals_transformers_llama_rotary(base: float):
    """B=2 H=6 K=2 T=7 D=10, positions 5..11"""
    config = LlamaConfig(
        head_dim=10, max_position_embeddings=13, rope_parameters={"rope_type": "default", "rope_theta": base}
    )
    pos = torch.arange(5, 12)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 6, 7, 10, generator=generator), torch.randn(2, 2, 7, 10, generator=generator)
    cos, sin = LlamaRotaryEmbedding(config)(q, pos[None])
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    ours = RotaryPositions(head_width=10, block_size=13, rotary_base=base).rotate(q, k, pos)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_rows_of_a_batch_may_stand_at_different_positions():
    rotary = RotaryPositions(head_width=4, block_size=9)
    x = torch.randn(2, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    pos = torch.tensor([[0, 1, 2, 3, 4], [4, 5, 6, 7, 8]])
    together = rotary.rotate(x, x, pos)[0]
    alone = [rotary.rotate(x[b : b + 1], x[b : b + 1], pos[b])[0] for b in range(2)]
    assert torch.equal(together, torch.cat(alone))


def test_an_odd_width_has_no_pairs():
    with pytest.raises(
        UsageError, match=r"^head width 5 is odd; rotary positions turn channels in pairs: make it even$"
    ):
        RotaryPositions(head_width=5, block_size=3)


def test_learned_positions_add_their_row():
    learned = LearnedPositions(n_embd=2, block_size=3)
    with torch.no_grad():
        learned.weight.copy_(torch.tensor([[1.0, 2], [10, 20], [100, 200]]))
    x = torch.zeros(1, 2, 2)
    assert learned.add(x, torch.tensor([2, 0])).tolist() == [[[100, 200], [1, 2]]]
    q = torch.ones(1, 1, 1, 2)
    assert learned.rotate(q, q, torch.tensor([1])) == (q, q)


def test_none_is_an_identity_and_tables_are_no_parameters():
    x = torch.ones(1, 2, 4)
    assert NoPositions().add(x, torch.arange(2)) is x
    rotary = POSITIONS["rotary"](head_width=4, block_size=9, n_embd=8)
    assert not list(rotary.parameters()) and not rotary.state_dict()  # computed, so never saved
