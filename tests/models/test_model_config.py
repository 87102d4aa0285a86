"""ModelConfig: what follows from what, how many parameters that makes, and what is said about a mistake."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import toy_config

from glassformer.errors import UsageError
from glassformer.layers import ACTIVATIONS, NORMS, POSITIONS
from glassformer.models import (
    FAMILIES,
    SIZES,
    Decoder,
    EncoderConfig,
    ModelConfig,
    dial,
    parameter_count,
    parameters_by_part,
)

SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 3, "n_embd": 15}


def test_what_is_not_set_follows_from_the_rest():
    classic = ModelConfig.make(**SHAPE)
    assert (classic.n_kv_head, classic.head_width, classic.n_hidden) == (3, 5, 60)
    assert (classic.positions, classic.norm, classic.activation) == ("learned", "layernorm", "gelu_new")
    modern = ModelConfig.make(family="modern", **{**SHAPE, "n_embd": 42})
    assert (modern.n_kv_head, modern.head_width) == (3, 14)
    assert modern.n_hidden == 128  # 8/3 * 42 = 112, rounded up to a multiple of 32
    assert (modern.positions, modern.norm, modern.feedforward, modern.qk_norm) == ("rotary", "rmsnorm", "gated", True)


def test_a_family_is_a_preset_and_nothing_more():
    """Once all fields are given, the name of the family changes nothing but itself."""
    fields = ModelConfig.make(family="modern", **{**SHAPE, "n_embd": 42}).model_dump()
    assert ModelConfig.make(**{**fields, "family": "classic"}).model_dump() == {**fields, "family": "classic"}
    assert FAMILIES.keys() == {"classic", "modern", "original"}


@st.composite
def configurations(draw) -> ModelConfig:
    """Any configuration that can be built, small."""
    heads, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    positions = draw(st.sampled_from(sorted(POSITIONS)))
    even = 2 if positions in ("rotary", "sinusoidal") else 1
    place = draw(st.sampled_from(["pre", "post", "sandwich", "output"]))
    return ModelConfig.make(
        vocab_size=draw(st.integers(1, 9)),
        block_size=draw(st.integers(1, 9)),
        n_layer=draw(st.integers(1, 3)),
        n_head=heads * groups,
        n_kv_head=heads,
        head_width=draw(st.integers(1, 4)) * even,
        n_embd=draw(st.integers(1, 4)) * even,
        n_hidden=draw(st.integers(1, 9)),
        positions=positions,
        norm=draw(st.sampled_from(sorted(NORMS))),
        n_gram=draw(st.integers(1, 4)),
        n_gram_rows=draw(st.integers(0, 200)),
        feedforward=draw(st.sampled_from(["plain", "gated", "clamped"])),
        activation=draw(st.sampled_from(sorted(ACTIVATIONS))),
        bias=draw(st.booleans()),
        qkv_bias=draw(st.sampled_from([None, True, False])),
        out_bias=draw(st.sampled_from([None, True, False])),
        feedforward_bias=draw(st.sampled_from([None, True, False])),
        qk_norm=draw(st.booleans()),
        qk_norm_over=draw(st.sampled_from(["head", "all"])),
        tied_head=draw(st.booleans()),
        norm_place=place,
        parallel=place == "pre" and draw(st.booleans()),
        embedding_norm=draw(st.booleans()),
        head_bias=draw(st.booleans()),
        n_segments=draw(st.integers(0, 2)),
        attention_sinks=draw(st.booleans()),
        n_expert=draw(st.sampled_from([0, 2, 3])),
        router_bias=draw(st.booleans()),
        relative_buckets=draw(st.sampled_from([4, 8])),
        relative_max_distance=20,
    )


@given(configurations())
@settings(max_examples=60, deadline=None)
def test_parameters_are_counted_without_building_the_model(config: ModelConfig):
    assert parameter_count(config) == Decoder(config).parameter_count()
    parts = parameters_by_part(config)
    assert sum(parts.values()) == parameter_count(config)
    assert "other" not in parts and min(parts.values()) > 0


COUNTS = {
    "gpt2": 124_439_808,
    "gpt2-medium": 354_823_168,
    "gpt2-large": 774_030_080,
    "gpt2-xl": 1_557_611_200,
}
MILLIONS = {  # table 2.1 of the paper, which rounds
    "gpt3-small": 125,
    "gpt3-medium": 350,
    "gpt3-large": 760,
    "gpt3-xl": 1_300,
    "gpt3-2.7b": 2_700,
    "gpt3-6.7b": 6_700,
    "gpt3-13b": 13_000,
    "gpt3": 175_000,
}


@pytest.mark.parametrize("size", [*COUNTS, *MILLIONS])
def test_gpt_sizes_have_the_published_counts(size: str):
    count = parameter_count(ModelConfig.make(**SIZES[size]))
    assert count == COUNTS[size] if size in COUNTS else count == pytest.approx(MILLIONS[size] * 1e6, rel=0.02)


def test_one_dial_gives_the_lectures_model_and_gpt2():
    assert dial(6) == {"n_layer": 6, "n_head": 6, "n_embd": 384}
    gpt2 = SIZES["gpt2"]
    assert dial(12) == {key: gpt2[key] for key in ("n_layer", "n_head", "n_embd")}


LOOKS_AHEAD = {"patterns": ["window(3)", "bidirectional_window(2)"]}
MISTAKES = [
    ({"n_embd": 100, "n_head": 6}, "n_embd=100 is not divisible by n_head=6; try n_embd=96"),
    ({"n_embd": 5, "n_head": 7}, "n_embd=5 is not divisible by n_head=7; try n_embd=7"),
    ({"n_kv_head": 2}, "n_head=3 is not divisible by n_kv_head=2"),
    ({"n_kv_head": 10**9 + 7}, "n_head=3 is not divisible by n_kv_head=1000000007"),
    ({"n_layers": 2}, "unknown key model.n_layers; did you mean n_layer?"),
    ({"positions": "rotary"}, "head_width=5 with rotary_fraction=1.0 turns 5 channels"),
    (LOOKS_AHEAD, "'bidirectional_window(2)' sees the future, which a decoder must not"),
    ({"patterns": ["windw(3)"]}, "pattern 'windw(3)': 'windw' is unknown; did you mean window?"),
    ({"parallel": True, "norm_place": "sandwich"}, "norm_place=pre, or parallel=false"),
    ({"positioned_layers": [True, False]}, "positioned_layers does not fit positions=learned"),
    ({"activation": "gelu-new"}, "did you mean gelu_new? (one of your own: --plugin MODULE)"),
    ({"positions": "xpos"}, "known: alibi, learned, none, relative, rotary, sinusoidal"),
    ({"norm": "rms"}, "norm='rms' is unknown; did you mean rmsnorm?"),
    ({"n_expert": 2, "n_expert_active": 3}, "n_expert_active=3 is too many; use 2 or less"),
    ({"family": "modem"}, "model.family='modem' is unknown; use classic, modern or original"),
    ({"n_layer": 0}, "model.n_layer=0 is too small; use 1 or more"),
    ({"n_embd": -4}, "model.n_embd=-4 is too small; use 1 or more"),
    ({"n_embd": 10**12 + 1}, "model.n_embd=1000000000001 is too large; use 1000000 or less"),
    ({"n_head": 0}, "model.n_head=0 is too small; use 1 or more"),
    ({"n_layer": "many"}, "model.n_layer='many' is not a whole number"),
    ({"vocab_size": None}, "model.vocab_size=None is not a whole number"),
]


@pytest.mark.parametrize(("change", "message"), MISTAKES, ids=[", ".join(map(str, c)) for c, _ in MISTAKES])
def test_a_mistake_is_one_line_that_names_the_next_step(change: dict, message: str):
    with pytest.raises(UsageError) as error:
        ModelConfig.make(**{**SHAPE, **change})
    assert message in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(("change", "message"), MISTAKES[:2])
def test_the_advice_of_a_message_works(change: dict, message: str):
    field, value = message.split("try ")[1].split("=")
    ModelConfig.make(**{**SHAPE, **change, field: int(value)})


def test_layers_take_their_patterns_in_turn():
    patterns = ["window(3)", "window(3)", "causal"]
    shown = ModelConfig.make(**{**SHAPE, "n_layer": 5}, patterns=patterns).layer_masks()
    assert [str(pattern) for pattern in shown] == ["window(3)", "window(3)", "causal", "window(3)", "window(3)"]
    assert [str(p) for p in ModelConfig.make(**SHAPE).layer_masks()] == ["causal"] * 2
    assert [str(p) for p in EncoderConfig.make(**SHAPE).layer_masks()] == ["full"] * 2


def test_a_missing_field_is_named():
    with pytest.raises(UsageError) as error:
        ModelConfig.make(**{k: v for k, v in SHAPE.items() if k != "vocab_size"})
    assert str(error.value) == "model.vocab_size is missing; give it a value"


def test_a_configuration_cannot_be_changed_behind_the_models_back():
    with pytest.raises(ValueError, match="frozen"):
        toy_config().n_layer = 7


def test_sines_do_not_drown_the_embedding_of_a_new_model_and_what_is_written_stands():
    """Section 3.4 of the 2017 paper: embeddings times sqrt(C), here for n_embd = 15 and 14."""
    assert ModelConfig.make(**SHAPE).embedding_scale == 1.0
    sines = {**SHAPE, "positions": "sinusoidal", "n_embd": 18}
    for config in (ModelConfig.make(**sines), EncoderConfig.make(**sines)):
        assert config.embedding_scale == pytest.approx(18**0.5)
    old = ModelConfig.make(**sines, embedding_scale=1.0)
    assert ModelConfig.make(**old.model_dump()) == old and old.embedding_scale == 1.0
