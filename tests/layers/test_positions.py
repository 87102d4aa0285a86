"""Each kind of positions by hand and against transformers: rotary, learned, sinusoidal, ALiBi, T5's buckets."""

from __future__ import annotations

import math

import pytest
import torch
from toys import shaken
from transformers import LlamaConfig, T5Config
from transformers.models.bloom.modeling_bloom import _get_alibi_slopes, build_alibi_tensor
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb
from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding
from transformers.models.mpt.modeling_mpt import build_mpt_alibi_tensor
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.models.whisper.modeling_whisper import sinusoids

from glassformer.errors import UsageError
from glassformer.layers import (
    AlibiPositions,
    LearnedPositions,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
)
from glassformer.layers.relative import alibi_slopes, bucket_of_distances

T = 7


def test_rotation_by_hand():
    """Width 4 and base 100: pair (0, 2) turns by 1 radian a position, pair (1, 3) by 1/10."""
    rotary, unit = RotaryPositions(head_width=4, block_size=4, rotary_base=100), torch.eye(4)[None, None]
    turned = rotary.rotate(unit, unit, torch.full((4,), 3))[0][0, 0].tolist()
    cos, sin = math.cos, math.sin
    assert turned[0] == pytest.approx([cos(3), 0, sin(3), 0], abs=1e-6)
    assert turned[1] == pytest.approx([0, cos(0.3), 0, sin(0.3)], abs=1e-6)
    assert turned[2] == pytest.approx([-sin(3), 0, cos(3), 0], abs=1e-6)
    assert torch.equal(rotary.rotate(unit, unit, torch.zeros(4, dtype=torch.long))[0], unit)


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


def test_learned_positions_add_their_row():
    learned = LearnedPositions(n_embd=2, block_size=3)
    with torch.no_grad():
        learned.weight.copy_(torch.tensor([[1.0, 2], [10, 20], [100, 200]]))
    assert learned.add(torch.zeros(1, 2, 2), torch.tensor([2, 0])).tolist() == [[[100, 200], [1, 2]]]


def table(n_embd: int, length: int, layout: str) -> torch.Tensor:
    """What is added to a zero at positions 0 ... length - 1."""
    positions = SinusoidalPositions(n_embd=n_embd, block_size=length, sinusoid_layout=layout)
    return positions.add(torch.zeros(1, length, n_embd), torch.arange(length))[0]


def test_sinusoids_by_hand():
    """Sect. 3.5 with four channels: wavelengths 2 pi and 100 times that, sine and cosine side by side."""
    sin, cos = math.sin, math.cos
    for pos, row in enumerate(table(4, 6, "interleaved").tolist()):
        assert row == pytest.approx([sin(pos), cos(pos), sin(pos / 100), cos(pos / 100)], abs=1e-7)


@pytest.mark.parametrize("n_embd", [2, 10, 64])
def test_halves_equal_marians(n_embd: int):
    theirs = MarianSinusoidalPositionalEmbedding(37, n_embd).create_weight()
    torch.testing.assert_close(table(n_embd, 37, "halves"), theirs, rtol=0, atol=1e-6)
    by_halves = torch.cat((table(n_embd, 37, "interleaved")[:, 0::2], table(n_embd, 37, "interleaved")[:, 1::2]), 1)
    assert torch.equal(by_halves, table(n_embd, 37, "halves"))


@pytest.mark.parametrize("n_embd", [4, 10, 64])
def test_whispers_reach_the_last_wavelength(n_embd: int):
    """Computed in single precision there, hence the tolerance; Marian's spacing is far outside of it."""
    theirs = sinusoids(37, n_embd)
    torch.testing.assert_close(table(n_embd, 37, "whisper"), theirs, rtol=0, atol=1e-5)
    assert (table(n_embd, 37, "halves") - theirs).abs().max() > 1e-2


def test_alibi_by_hand():
    """Eight heads have slopes 1/2, 1/4 ... 1/256 (fig. 3 of the paper); the query itself loses nothing."""
    bias = AlibiPositions(n_head=8).bias(torch.tensor([3]), torch.arange(5))
    assert bias[:, 0, 2].tolist() == [-(2.0**-i) for i in range(1, 9)]
    assert bias[0, 0].tolist() == [-1.5, -1.0, -0.5, 0.0, -0.5]


@pytest.mark.parametrize("n_head", [*range(1, 20), 32, 40, 64])
def test_slopes_equal_those_of_bloom_and_mpt(n_head: int):
    """Also for numbers of heads that are no power of two."""
    ours = torch.tensor(alibi_slopes(n_head))
    torch.testing.assert_close(ours, _get_alibi_slopes(n_head, torch.device("cpu")), rtol=1e-5, atol=0)
    ours_of_the_last_query = AlibiPositions(n_head=n_head).bias(torch.tensor([T - 1]), torch.arange(T))
    torch.testing.assert_close(ours_of_the_last_query, build_mpt_alibi_tensor(n_head, T), rtol=1e-5, atol=0)


def test_under_a_causal_mask_the_weights_are_blooms():
    """Bloom adds slope times key position to every row, which differs by a constant that the softmax does not feel."""
    theirs = build_alibi_tensor(torch.ones(1, T), 6, torch.float32)  # (6, 1, T)
    future = torch.ones(T, T).triu(1) * -1e9
    pos = torch.arange(T)
    ours = AlibiPositions(n_head=6).bias(pos, pos)
    torch.testing.assert_close((ours + future).softmax(-1), (theirs + future).softmax(-1))


BUCKETS = [(32, 128), (8, 20), (6, 7), (4, 5), (32, 17), (10, 1000)]


@pytest.mark.parametrize("causal", [True, False], ids=["causal", "both ways"])
@pytest.mark.parametrize(("n_buckets", "max_distance"), BUCKETS)
def test_buckets_equal_those_of_t5_at_every_distance(n_buckets: int, max_distance: int, causal: bool):
    """Three times as far as the table goes: what is beyond shares the last bucket."""
    distance = torch.arange(-3 * max_distance, 3 * max_distance + 1)
    theirs = T5Attention._relative_position_bucket(
        distance, bidirectional=not causal, num_buckets=n_buckets, max_distance=max_distance
    )
    table = bucket_of_distances(n_buckets, max_distance, causal=causal)
    assert torch.equal(table[distance.clamp(-max_distance, max_distance) + max_distance], theirs)


@pytest.mark.parametrize("causal", [True, False], ids=["decoder", "encoder"])
def test_the_bias_equals_that_of_t5(causal: bool):
    """Queries 5..11 of 12 keys, three heads."""
    config = T5Config(
        d_model=15, d_kv=5, num_heads=3, relative_attention_num_buckets=8, relative_attention_max_distance=10,
        is_decoder=causal,
    )  # fmt: skip
    theirs = T5Attention(config, has_relative_attention_bias=True, layer_idx=0)
    ours = RelativePositions(n_head=3, relative_buckets=8, relative_max_distance=10, causal=causal)
    shaken(ours)
    theirs.relative_attention_bias.weight = ours.weight
    got, expected = ours.bias(torch.arange(5, 12), torch.arange(12)), theirs.compute_bias(7, 12, past_seen_tokens=5)
    assert torch.equal(got, expected[0])
    ways = torch.linspace(-1, 1, got.numel()).view_as(got)
    gradients = [torch.autograd.grad((y * ways).sum(), ours.weight)[0] for y in (got, expected[0])]
    torch.testing.assert_close(*gradients)


def test_buckets_by_hand():
    """Eight buckets both ways, up to 8: four for the past (0, 1, 2 to 3, 4 and more), as many for the future."""
    table = bucket_of_distances(8, 8, causal=False).tolist()
    assert table[8:] == [0, 5, 6, 6, 7, 7, 7, 7, 7]  # distance 0 to 8, keys after the query
    assert table[7::-1] == [1, 2, 2, 3, 3, 3, 3, 3]  # 1 to 8 before it
    assert bucket_of_distances(4, 3, causal=True).tolist() == [3, 2, 1, 0, 0, 0, 0]


def test_what_is_learned_counts_the_pairs_at_each_distance():
    """Four tokens, causal, buckets 0 1 2 3+: the sum of all biases has the gradient 4 (self) + 6 (future), 3, 2, 1."""
    relative = RelativePositions(n_head=2, relative_buckets=4, relative_max_distance=3)
    pos = torch.arange(4)
    relative.bias(pos, pos).sum().backward()
    assert relative.weight.grad.tolist() == [[10, 10], [3, 3], [2, 2], [1, 1]]


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        (RelativePositions, {"relative_buckets": 1}, "relative_buckets=1 is too small; use 2 or more"),
        (RelativePositions, {"relative_buckets": 2, "causal": False}, "relative_buckets=2 is too small; use 4 or more"),
        (RelativePositions, {"relative_buckets": 7, "causal": False}, "relative_buckets=7 is odd"),
        (RelativePositions, {"relative_max_distance": 16}, "relative_max_distance=16 is too small"),
        (SinusoidalPositions, {"n_embd": 5}, "n_embd=5 is odd; sines and cosines come in pairs: try n_embd=6"),
        (SinusoidalPositions, {"n_embd": 2, "sinusoid_layout": "whisper"}, "n_embd=2 is too small"),
        (SinusoidalPositions, {"n_embd": 4, "sinusoid_layout": "halfs"}, "did you mean halves?"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, fields, message):
    with pytest.raises(UsageError) as error:
        kind(n_head=3, block_size=7, **fields)
    assert message in str(error.value)
