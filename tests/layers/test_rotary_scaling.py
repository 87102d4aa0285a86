"""Rotary scaling against transformers, by hand, and what is refused. Heads of 10 and 16 channels, 24 positions of
training: short enough that every kind has pairs at both ends of its ramp and between."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from toys import toy_config
from transformers import GPTNeoXConfig, LlamaConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
from transformers.models.gpt_neox.modeling_gpt_neox import apply_rotary_pos_emb as neox_apply
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from glassformer.errors import UsageError
from glassformer.layers import ROTARY_SCALINGS, RotaryPositions
from glassformer.layers.rotary_scaling import rotary_frequencies

TRAINED = {"original_max_position_embeddings": 24}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 3.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 2.0, "beta_slow": 0.2, **TRAINED},
    "yarn, its own betas": {"rope_type": "yarn", "factor": 40.0, "original_max_position_embeddings": 4096},
    "yarn, ends not rounded": {"rope_type": "yarn", "factor": 4.0, "beta_fast": 3, "truncate": False, **TRAINED},
    "yarn, a given attention factor": {"rope_type": "yarn", "factor": 4.0, "attention_factor": 1.25, **TRAINED},
    "yarn, DeepSeek": {"rope_type": "yarn", "factor": 4.0, "mscale": 0.7, "mscale_all_dim": 1.1, **TRAINED},
    "llama3": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 0.3, "high_freq_factor": 3.0, **TRAINED},
}

LONGROPE: dict[str, Any] = {
    "rope_type": "longrope",
    "factor": 4.0,
    "original_max_position_embeddings": 16,
    "short_factor": (1.0, 2.0, 5.0, 5.0, 10.0),
    "long_factor": (3.0, 7.0, 9.0, 9.0, 9.0),
}


def llama(width: int, base: float, scaling: dict[str, Any], length: int = 96) -> LlamaConfig:
    rope = {"rope_theta": base, **scaling}
    return LlamaConfig(head_dim=width, max_position_embeddings=length, rope_parameters=rope)


@pytest.mark.parametrize("base", [100.0, 10_000.0])
@pytest.mark.parametrize("width", [10, 64])
@pytest.mark.parametrize("kind", SCALINGS)
def test_frequencies_and_amplitude_equal_those_of_transformers(kind: str, width: int, base: float):
    scaling = SCALINGS[kind]
    theirs, factor = ROPE_INIT_FUNCTIONS[scaling["rope_type"]](llama(width, base, scaling), torch.device("cpu"))
    ours = rotary_frequencies(width, base, scaling)
    torch.testing.assert_close(ours.frequency.float(), theirs, rtol=2e-6, atol=0)
    assert ours.amplitude == pytest.approx(factor, abs=1e-12)
    if kind != "yarn, its own betas" or width == 64:  # with five pairs its ramp is a step that slows all or none
        assert not torch.allclose(ours.frequency, rotary_frequencies(width, base).frequency, rtol=1e-3)


@pytest.mark.parametrize("kind", SCALINGS)
def test_turned_queries_and_keys_equal_those_of_transformers(kind: str):
    """B=2 H=6 K=2 T=7 D=10, positions 80..86, far beyond the 24 of training."""
    pos, generator = torch.arange(80, 87), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 6, 7, 10, generator=generator), torch.randn(2, 2, 7, 10, generator=generator)
    cos, sin = LlamaRotaryEmbedding(llama(10, 100.0, SCALINGS[kind]))(q, pos[None])
    theirs = apply_rotary_pos_emb(q, k, cos, sin)
    ours = RotaryPositions(head_width=10, block_size=96, rotary_base=100.0, rotary_scaling=SCALINGS[kind])
    torch.testing.assert_close(ours.rotate(q, k, pos), theirs, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("scaling", [None, SCALINGS["yarn"]], ids=["plain", "yarn"])
@pytest.mark.parametrize(("width", "fraction", "turned"), [(16, 0.25, 4), (10, 0.4, 4), (12, 0.5, 6), (10, 0.48, 4)])
def test_a_part_of_the_channels_turns_as_in_gpt_neox(width: int, fraction: float, turned: int, scaling):
    rope = {"rope_theta": 100.0, "partial_rotary_factor": fraction, **(scaling or {"rope_type": "default"})}
    config = GPTNeoXConfig(
        hidden_size=3 * width, num_attention_heads=3, max_position_embeddings=29, rope_parameters=rope
    )
    pos, generator = torch.arange(5, 12), torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 2, 3, 7, width, generator=generator)
    cos, sin = GPTNeoXRotaryEmbedding(config)(q, pos[None])
    ours = RotaryPositions(
        head_width=width, block_size=29, rotary_base=100.0, rotary_fraction=fraction, rotary_scaling=scaling
    )
    got = ours.rotate(q, k, pos)
    torch.testing.assert_close(got, neox_apply(q, k, cos, sin), rtol=1e-5, atol=1e-5)
    assert torch.equal(got[0][..., turned:], q[..., turned:])
    assert (got[0][..., :turned] != q[..., :turned]).all()


def test_ntk_slows_the_slowest_by_the_factor_and_the_fastest_not_at_all():
    """By hand: 4 pairs, base 10^4, factor 8: frequencies 1, 1/10, 1/100, 1/1000 divided by 1, 2, 4, 8. It is a change
    of base by factor^(D / (D - 2)), and what transformers' "dynamic" does to a text long enough for this factor."""
    ours = rotary_frequencies(8, 10_000.0, {"rope_type": "ntk", "factor": 8.0}).frequency
    torch.testing.assert_close(ours, torch.tensor([1, 1 / 20, 1 / 400, 1 / 8000], dtype=torch.float64))
    rebased = rotary_frequencies(8, 10_000.0 * 8.0 ** (8 / 6)).frequency
    torch.testing.assert_close(ours, rebased)
    dynamic = llama(8, 10_000.0, {"rope_type": "dynamic", "factor": 2.0}, length=100)
    theirs, _ = ROPE_INIT_FUNCTIONS["dynamic"](dynamic, torch.device("cpu"), seq_len=450)  # 2 * 450/100 - 1 = 8
    torch.testing.assert_close(ours.float(), theirs, rtol=1e-6, atol=0)


def test_where_the_pairs_lie_beyond_an_end_of_yarns_ramp():
    """After very short training all are slowed but the first (the ramp begins there at the earliest), after very long
    training none; transformers divides by the negative length of its ramp there."""
    plain = rotary_frequencies(10, 100.0).frequency
    slowed = torch.cat((plain[:1], plain[1:] / 4))
    for trained, expected in ((3, slowed), (10**9, plain)):
        scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": trained, "truncate": False}
        torch.testing.assert_close(rotary_frequencies(10, 100.0, scaling).frequency, expected)


@pytest.mark.parametrize("scaling", [None, {}, {"rope_type": "default"}, {"type": "default"}])
def test_no_scaling_is_the_formula_of_the_paper(scaling):
    assert rotary_frequencies(6, 1000.0, scaling).frequency.tolist() == pytest.approx([1, 0.1, 0.01])


def test_the_older_name_of_the_type_and_words_without_a_value():
    older = {"type": "linear", "factor": 3.0, "original_max_position_embeddings": None}
    with pytest.raises(UsageError, match="is no word of rope_type='linear'"):
        rotary_frequencies(6, 100.0, older)
    older.pop("original_max_position_embeddings")
    newer = rotary_frequencies(6, 100.0, SCALINGS["linear"])
    assert torch.equal(rotary_frequencies(6, 100.0, older).frequency, newer.frequency)
    given = rotary_frequencies(6, 100.0, {**SCALINGS["yarn"], "attention_factor": None})
    assert given.amplitude == rotary_frequencies(6, 100.0, SCALINGS["yarn"]).amplitude


TYPE = "rope_type"
REFUSED = [
    ({TYPE: "yarm", "factor": 2}, "rope_type='yarm' is unknown; did you mean yarn?"),
    ({TYPE: 5}, "rope_type=5 is unknown; known: default, linear, llama3"),
    ({"factor": 2.0}, "factor is no word of rope_type='default'; leave it out"),
    ({TYPE: "linear"}, "rope_type='linear' needs factor"),
    ({TYPE: "linear", "factor": None}, "rope_type='linear' needs factor"),
    ({TYPE: "yarn", "factor": 2}, "rope_type='yarn' needs original_max_position_embeddings"),
    ({TYPE: "linear", "factor": 2, "beta_fats": 3}, "beta_fats is no word of rope_type='linear'; known: factor"),
    ({**SCALINGS["yarn"], "beta_fats": 3}, "beta_fats is no word of rope_type='yarn'; did you mean beta_fast?"),
    ({**SCALINGS["yarn"], "beta_fast": 0.1}, "beta_fast=0.1 is no more than beta_slow=0.2; exchange them"),
    ({**SCALINGS["llama3"], "high_freq_factor": 0.3}, "high_freq_factor=0.3 is no more than low_freq_factor=0.3"),
    ({"rope_theta": 500.0}, "rope_theta has a field of its own; write rotary_base=500.0"),
    ({**SCALINGS["linear"], "partial_rotary_factor": 0.5}, "write rotary_fraction=0.5"),
    ({**LONGROPE, "short_factor": (1.0, 2.0)}, "short_factor has 2 factors for 5 pairs"),
]


@pytest.mark.parametrize(("scaling", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_a_mistake_is_one_line_that_names_the_next_step(scaling: dict[str, Any], message: str):
    with pytest.raises(UsageError) as error:
        RotaryPositions(head_width=10, block_size=7, rotary_scaling=scaling)
    assert str(error.value).startswith("rotary_scaling: ") and message in str(error.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [("factor", "two"), ("factor", math.nan), ("factor", math.inf), ("factor", 0.5), ("beta_fast", -1.0),
     ("truncate", 7), ("short_factor", (1.0, 0.0)), ("long_factor", "1,2"), ("beta_fats", 3)],
)  # fmt: skip
def test_a_number_out_of_range_is_named_by_the_configuration(key: str, value: Any):
    with pytest.raises(UsageError, match=rf"model\.rotary_scaling\.{key}"):
        toy_config("modern", rotary_scaling={**SCALINGS["yarn"], key: value})


@pytest.mark.parametrize(("width", "fraction"), [(5, 1.0), (10, 0.3), (10, 0.05), (10, 0.0)])
def test_a_share_must_be_whole_pairs(width: int, fraction: float):
    with pytest.raises(UsageError, match=f"head_width={width} with rotary_fraction={fraction} turns .* even number"):
        RotaryPositions(head_width=width, block_size=7, rotary_fraction=fraction)


def test_two_channels_are_one_pair_with_nothing_between():
    with pytest.raises(UsageError, match="rope_type='ntk' needs two pairs of channels"):
        RotaryPositions(head_width=2, block_size=7, rotary_scaling={TYPE: "ntk", "factor": 2.0})


def test_every_scaling_is_tested_here():
    tested = {scaling[TYPE] for scaling in SCALINGS.values()} | {"ntk", "longrope"}  # longrope: Phi-3 in tests/parity
    assert tested == ROTARY_SCALINGS.keys()


def test_longrope_turns_each_pair_by_its_own_factor():
    """Frequencies 1, 0.1, 0.01 ... by 1, 2, 5 ...; amplitude sqrt(1 + ln 4 / ln 16) = sqrt(1.5)."""
    scaled = rotary_frequencies(10, 1e5, LONGROPE)
    assert scaled.frequency.tolist() == pytest.approx([1, 0.05, 0.002, 0.0002, 0.00001])
    assert scaled.amplitude == pytest.approx(math.sqrt(1.5))
