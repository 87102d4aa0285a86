"""A family takes a configuration only if every field of it means the same there; a field nobody thought of is refused.

For each family stands one configuration that it takes. Each field is then given another value, and the family must
refuse it, or its words must bring the value back, or the field must mean nothing (and the test says which those are).
A field that is added to a configuration and to no family comes into this test by itself.
"""

from __future__ import annotations

import math
from typing import Any

import pytest

from glassformer.errors import UsageError
from glassformer.hub import FAMILIES, family_for
from glassformer.hub.families.family import fields_without_meaning
from glassformer.models import (
    DecoderClassifierConfig,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    make_config,
)

SHAPE = {"vocab_size": 61, "block_size": 13, "n_layer": 2, "n_head": 4, "n_embd": 24, "n_hidden": 23}
POST_NORM = {"family": "original", "positions": "learned", "embedding_norm": True, "embedding_scale": 1.0}
TOKENS = {"start_token": 5, "end_token": 7}
DISTANCES = {"positions": "relative", "attention_scale": 1.0, "qk_norm": False, "activation": "gelu_new"}
FRAMES = {**SHAPE, "vocab_size": 1, "stem": "frames", "positions": "sinusoidal", "sinusoid_layout": "whisper"}

LLAMA = {"family": "modern", "qk_norm": False}
BIASES = {"qkv_bias": True, "out_bias": True, "feedforward_bias": True, "router_bias": True}
GPT_OSS = {**LLAMA, **BIASES, "attention_sinks": True, "feedforward": "clamped", "activation": "quick_gelu"}
GEMMA = {"family": "modern", "norm": "zero_centered_rmsnorm", "norm_place": "sandwich", "activation": "gelu_new"}
GEMMA |= {"embedding_scale": math.sqrt(24), "patterns": ("window(5)", "causal")}

PATCHES = {"vocab_size": 1, "block_size": 5, "stem": "patches", "image_size": 8, "patch_size": 4, "n_classes": 9}
PATCHES |= {"embedding_norm": True, "patch_bias": False}

BASES: dict[str, Any] = {
    "gpt2": ModelConfig.make(**SHAPE),
    "qwen3": ModelConfig.make(**SHAPE, family="modern"),
    "llama": ModelConfig.make(**SHAPE, family="modern", qk_norm=False),
    "qwen2": ModelConfig.make(**SHAPE, family="modern", qk_norm=False, qkv_bias=True),
    "mistral": ModelConfig.make(**SHAPE, family="modern", qk_norm=False, patterns=("window(5)",)),
    "phi3": ModelConfig.make(**SHAPE, family="modern", qk_norm=False, rotary_fraction=0.67),
    "olmo2": ModelConfig.make(**SHAPE, family="modern", norm_place="output", qk_norm_over="all"),
    "smollm3": ModelConfig.make(**SHAPE, family="modern", qk_norm=False, positioned_layers=(False, True)),
    "gpt_neox": ModelConfig.make(**SHAPE, positions="rotary", rotary_fraction=0.67),
    "gpt_neo": ModelConfig.make(**SHAPE, attention_scale=1.0, qkv_bias=False, patterns=("causal", "window(5)")),
    "mixtral": ModelConfig.make(**SHAPE, family="modern", qk_norm=False, n_expert=5),
    "qwen3_moe": ModelConfig.make(**SHAPE, family="modern", n_expert=5, expert_shares="all"),
    "gpt_oss": ModelConfig.make(**SHAPE, **GPT_OSS, n_expert=5),
    "gemma2": ModelConfig.make(**SHAPE, **GEMMA, qk_norm=False, logit_softcap=30.0, attention_softcap=50.0),
    "gemma3_text": ModelConfig.make(**SHAPE, **GEMMA, rotary_base=1e6, rotary_base_local=1e4),
    "bert": EncoderConfig.make(**SHAPE, **POST_NORM, token_head="vocabulary", token_transform=True, head_bias=True),
    "vit": EncoderConfig.make(
        **{**SHAPE, "vocab_size": 1, "block_size": 5}, stem="patches", image_size=8, patch_size=4, n_classes=7
    ),
    "decision_transformer": make_config(
        "trajectory_decoder",
        **{**SHAPE, "vocab_size": 1, "block_size": 12},
        positions="none",
        state_size=5,
        action_size=3,
        max_timestep=9,
    ),
    "deit": EncoderConfig.make(
        **{**SHAPE, "vocab_size": 1, "block_size": 6},
        stem="patches",
        image_size=8,
        patch_size=4,
        n_classes=7,
        distillation="heads",
    ),
    "clip": DualEncoderConfig.make(image={**SHAPE, **PATCHES}, text={**SHAPE, "n_classes": 9}, end_token=7),
    "t5": EncoderDecoderConfig.make(**SHAPE, **TOKENS, **DISTANCES, family="modern", tied_head=False),
    "marian": EncoderDecoderConfig.make(**SHAPE, **TOKENS, family="original", head_bias=True),
    "bart": EncoderDecoderConfig.make(**SHAPE, **TOKENS, **POST_NORM, head_bias=True),
    "whisper": EncoderDecoderConfig(
        encoder=EncoderConfig.make(**FRAMES), decoder=ModelConfig.make(**SHAPE), shared_embedding=False, **TOKENS
    ),
}
# Another value for every field; what the first cannot be (it is the value already, or does not fit) may be the second.
SWITCHES = (
    "bias", "qkv_bias", "out_bias", "feedforward_bias", "qk_norm", "tied_head", "final_norm", "embedding_norm",
    "head_bias", "attention_sinks", "router_bias", "token_transform", "shared_embedding",
)  # fmt: skip
OTHERS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(SWITCHES, (True, False)),
    "vocab_size": (67,), "block_size": (17, 15), "n_layer": (3,), "n_embd": (48,), "head_width": (10,),
    "n_hidden": (29,), "rotary_base": (500.0,), "rotary_base_local": (500.0,), "norm_eps": (0.01,),
    "feedforward_limit": (3.0,), "n_gram": (3,), "n_gram_rows": (101,), "embedding_scale": (3.0,),
    "logit_scale": (3.0,), "logit_softcap": (5.0,), "n_segments": (2,), "attention_softcap": (5.0,),
    "n_expert": (3,), "n_expert_active": (1,), "balance_weight": (0.5,), "rotary_fraction": (0.34,),
    "relative_buckets": (16,), "relative_max_distance": (64,), "image_size": (12,), "patch_size": (2,),
    "n_channels": (2,), "n_mels": (7,), "n_classes": (5,), "start_token": (11,), "end_token": (13,),
    "pad_token": (17,), "state_size": (7,), "action_size": (2,), "max_timestep": (11,),
    "action_tanh": (True,), "n_inputs": (3,), "number_mean": (0.5,), "number_scale": (2.0,),
    "n_head": (2, 8),
    "n_kv_head": (2, 1),
    "positions": ("alibi",),
    "norm": ("rmsnorm", "layernorm", "zero_centered_rmsnorm"),
    "feedforward": ("gated", "plain", "clamped"),
    "activation": ("relu", "silu"),
    "qk_norm_over": ("all", "head"),
    "patterns": (("window(4)",), ("causal", "window(5)"), ("window(4)", "window(5)"), ("window(5) & causal",)),
    "positioned_layers": ((True, False),),
    "parallel": (True,),
    "norm_place": ("output", "post", "pre", "sandwich"),
    "attention_scale": (0.7, 0.5),
    "expert_shares": ("all", "active"),
    "rotary_scaling": (
        {"rope_type": "yarn", "factor": 2.0, "original_max_position_embeddings": 7},
        {"rope_type": "ntk", "factor": 2.0},
    ),
    "sinusoid_layout": ("interleaved",),
    "stem": ("text", "frames"),
    "patch_bias": (False, True),
    "patch_convolutions": (True,),
    "class_token": (False,),
    "distillation": ("token", "heads"),
    "pooling": ("mean",),
    "pooler": (True,),
    "token_head": ("vocabulary", "none"),
}  # fmt: skip
# Fields that a family may take and need not tell, for what it writes means the same: zeros in the place of biases and
# of a segment that is none, a table of sines that may be longer; or there is no head over tokens.
NOT_WRITTEN = {
    "gpt2": {"bias"},
    "vit": {"bias"},
    "decision_transformer": {"bias"},
    "deit": {"bias"},
    "bert": {"bias", "head_bias", "n_segments"},
    "marian": {"bias", "head_bias", "block_size"},
    "bart": {"bias", "head_bias"},
    "whisper": {"bias"},
    "clip": {"tied_head", "head_bias"},
    "t5": {"block_size"},
}
# What some of them cannot have otherwise unless another field changes as well: the width of one of two, a shared table,
# layers without positions where all layers read them in the stream, layers side by side where norms stand elsewhere.
NEVER_ALONE = {
    *("n_embd", "vocab_size", "block_size", "image_size", "patch_size", "stem", "shared_embedding"),
    *("patch_bias", "patch_convolutions", "class_token", "distillation"),  # of images, and as many tokens more or less
    *("positioned_layers", "parallel"),
    *("n_inputs", "number_mean", "number_scale"),  # of sets, and of a head of one number
    "n_classes",  # as many numbers in the vectors of images as in those of texts
}


def changed(config: Any, path: str, value: Any) -> Any:
    """The configuration with one field changed (`both.` in encoder and decoder); its checks run."""
    side, _, field = path.rpartition(".")
    if not side:
        return type(config).make(**{**config.model_dump(), field: value})
    sides = ("encoder", "decoder") if side == "both" else (side,)
    return type(config).make(**{**dict(config), **{s: changed(getattr(config, s), field, value) for s in sides}})


def get(config: Any, path: str) -> Any:
    side, _, field = path.rpartition(".")
    if side == "both":
        return getattr(config.encoder, field), getattr(config.decoder, field)
    return getattr(getattr(config, side) if side else config, field)


def paths(config: Any) -> list[str]:
    found = list(type(config).model_fields)
    if isinstance(config, EncoderDecoderConfig):
        found += [f"encoder.{field}" for field in EncoderConfig.model_fields]
        found += [f"{side}.{field}" for side in ("decoder", "both") for field in ModelConfig.model_fields]
    if isinstance(config, DualEncoderConfig):
        found += [f"image.{field}" for field in EncoderConfig.model_fields]
        found += [f"text.{field}" for field in DecoderClassifierConfig.model_fields]
    halves = ("encoder", "decoder", "image", "text")
    return [path for path in found if path.rpartition(".")[2] not in ("family", "kind", *halves)]


def read_back(config: Any, path: str) -> Any:
    """What the words of the family that takes it say of the field, without what stands under `glassformer`."""
    family = family_for(config)
    special = {"decoder_start_token_id": "start_token", "eos_token_id": "end_token", "pad_token_id": "pad_token"}
    tokens = {theirs: getattr(config, ours) for theirs, ours in special.items() if hasattr(config, ours)}
    return get(family.read_config({**family.write_config(config), **tokens}), path)


def means_nothing(config: Any, path: str) -> bool:
    """Whether the family that takes the configuration need not tell the field, or nothing looks at it (in one of both:
    the other is tried by itself)."""
    side, _, field = path.rpartition(".")
    if field in NOT_WRITTEN.get(family_for(config).model_type, set()):
        return True
    stacks = {"both": ("encoder", "decoder"), "": ()}.get(side, (side,))
    looked_at = [getattr(config, s) for s in stacks] or [config]
    return any(hasattr(c, "positions") and field in fields_without_meaning(c) for c in looked_at)


@pytest.mark.parametrize("name", BASES)
def test_each_family_takes_its_own(name: str):
    assert family_for(BASES[name]).model_type == name


def test_every_family_and_every_field_is_here():
    assert {*BASES, "glassformer"} == FAMILIES.keys()
    fields = {path.rpartition(".")[2] for config in BASES.values() for path in paths(config)}
    assert fields == OTHERS.keys()  # a new field: give it another value here, and see which families must know it


@pytest.mark.parametrize("name", BASES)
def test_no_field_is_forgotten(name: str):
    base, refused = BASES[name], 0
    for path in paths(base):
        tried = False
        for value in OTHERS[path.rpartition(".")[2]]:
            try:
                config = changed(base, path, value)
            except UsageError:
                continue  # it does not fit the other fields, whatever the family
            if config == base:
                continue
            tried = True
            family = family_for(config).model_type
            if family == "glassformer":
                refused += 1
            elif not means_nothing(config, path):
                assert read_back(config, path) == get(config, path), f"{family} forgets {path}={value!r}"
        assert tried or path.rpartition(".")[2] in NEVER_ALONE, f"no other value of {path} was tried"
    assert refused > 5


def test_what_nothing_looks_at_keeps_no_family_from_taking_it():
    """A base for windows, where there are none, or where nothing turns."""
    idle = ModelConfig.make(**SHAPE, family="modern", rotary_base_local=500.0)
    assert family_for(idle).model_type == "qwen3"
    assert family_for(ModelConfig.make(**SHAPE, rotary_base_local=500.0)).model_type == "gpt2"
    seen = changed(idle, "patterns", ("window(3)", "causal"))
    assert "rotary_base_local" in fields_without_meaning(idle) - fields_without_meaning(seen)
