"""What Marian, BART and Whisper have in common there: the words and names that came from fairseq.

theirs, in every layer: self_attn, encoder_attn (each k_proj, v_proj, q_proj, out_proj), fc1, fc2, and three norms
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from glassformer.hub.families.family import activation, heads_fill_the_width, matches
from glassformer.hub.families.weight_table import Row, layer
from glassformer.models import EncoderDecoderConfig, ModelConfig

# What none of them can vary.
FIXED: dict[str, Any] = {"norm": "layernorm", "norm_eps": 1e-5, "feedforward": "plain", "qk_norm": False}


def fits(c: ModelConfig, *, free: Collection[str] = (), **fixed: Any) -> bool:
    """Whether an encoder or a decoder is of their form, with these fields besides."""
    free = {"n_kv_head", "head_width", "activation", "bias", "head_bias", *free}
    return matches(c, free=free, **{**FIXED, **fixed}) and heads_fill_the_width(c)


def scale_fits(c: EncoderDecoderConfig) -> bool:
    """Embeddings are as they are or times sqrt(C), in both."""
    scales = {c.encoder.embedding_scale, c.decoder.embedding_scale}
    return len(scales) == 1 and (scales == {1.0} or math.isclose(scales.pop(), math.sqrt(c.decoder.n_embd)))


def write_words(c: EncoderDecoderConfig) -> dict[str, Any]:
    """The fields that all of them have."""
    words: dict[str, Any] = {
        "d_model": c.decoder.n_embd,
        "activation_function": c.decoder.activation,
        "scale_embedding": c.decoder.embedding_scale != 1,
        "tie_word_embeddings": True,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
    }
    for side, stack in (("encoder", c.encoder), ("decoder", c.decoder)):
        words[f"{side}_layers"] = stack.n_layer
        words[f"{side}_attention_heads"] = stack.n_head
        words[f"{side}_ffn_dim"] = stack.n_hidden
        words[f"{side}_layerdrop"] = 0.0
    return words


def read_words(given: dict[str, Any], side: str) -> dict[str, Any]:
    """The same, of `encoder` or `decoder`, in our words."""
    return {
        **FIXED,
        "n_embd": given["d_model"],
        "n_layer": given[f"{side}_layers"],
        "n_head": given[f"{side}_attention_heads"],
        "n_hidden": given[f"{side}_ffn_dim"],
        "activation": activation(given.get("activation_function", "gelu")),
        "embedding_scale": math.sqrt(given["d_model"]) if given.get("scale_embedding") else 1.0,
        "bias": True,
        "tied_head": True,
    }


def stack(side: str, c: ModelConfig, *, cross: bool, key_bias: bool = True) -> list[Row]:
    """The rows of all blocks of `encoder` or `decoder`."""
    rows: list[Row] = []
    for number in range(c.n_layer):
        here, there = f"{side}.blocks.{number}", f"model.{side}.layers.{number}"
        looks, listens = f"{there}.self_attn", f"{there}.encoder_attn"
        rows += [
            *layer(
                f"{here}.attention.qkv",
                *(f"{looks}.{part}_proj" for part in "qkv"),
                unbiased=None if key_bias else f"{looks}.k_proj",
            ),
            *layer(f"{here}.attention.out", f"{looks}.out_proj"),
            *layer(f"{here}.attention_norm", f"{looks}_layer_norm"),
            *layer(f"{here}.feedforward.up", f"{there}.fc1"),
            *layer(f"{here}.feedforward.down", f"{there}.fc2"),
            *layer(f"{here}.feedforward_norm", f"{there}.final_layer_norm"),
        ]
        if cross:
            rows += [
                *layer(f"{here}.cross_attention.query", f"{listens}.q_proj"),
                *layer(
                    f"{here}.cross_attention.key_value",
                    *(f"{listens}.{part}_proj" for part in "kv"),
                    unbiased=None if key_bias else f"{listens}.k_proj",
                ),
                *layer(f"{here}.cross_attention.out", f"{listens}.out_proj"),
                *layer(f"{here}.cross_norm", f"{listens}_layer_norm"),
            ]
    return rows
