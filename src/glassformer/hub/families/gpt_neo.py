"""`GPTNeoForCausalLM`, also the TinyStories models: a GPT-2 with windows in every second layer.

Scores are not divided by anything, query, key and value have no biases, and matrices are kept as (out, in).
"""

from __future__ import annotations

from typing import Any

from glassformer.errors import ModelFolderError, plural
from glassformer.hub.families.family import Family, activation, agrees, heads_fill_the_width, is_known_activation
from glassformer.hub.families.layer_types import FULL, LOCAL, are_windows_of_one_width, patterns_of, types_of, window_of
from glassformer.hub.families.weight_table import Row, Tensors, layer, one, with_head
from glassformer.models import ModelConfig

TYPES = {"global": FULL, "local": LOCAL}


class GPTNeo(Family):
    """`gpt_neo`."""

    model_type = "gpt_neo"
    configuration = ModelConfig
    base_prefix = "transformer."

    def can_represent(self, c: ModelConfig) -> bool:
        return (
            agrees(
                c,
                free={"n_kv_head", "head_width", "norm_eps", "activation", "tied_head", "patterns"},
                positions="learned",
                norm="layernorm",
                feedforward="plain",
                bias=True,
                qkv_bias=False,
                qk_norm=False,
                attention_scale=1.0,
            )
            and heads_fill_the_width(c)
            and are_windows_of_one_width(c)
            and is_known_activation(c.activation)
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        named = {theirs: name for name, theirs in TYPES.items()}
        layers = [named[kind] for kind in types_of(c)]
        return {
            "architectures": ["GPTNeoForCausalLM"],
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.block_size,
            "hidden_size": c.n_embd,
            "num_layers": c.n_layer,
            "num_heads": c.n_head,
            "intermediate_size": c.n_hidden,
            "attention_types": [[layers, 1]],
            "attention_layers": layers,
            "window_size": window_of(c) or c.block_size,
            "activation_function": c.activation,
            "layer_norm_epsilon": c.norm_eps,
            "tie_word_embeddings": c.tied_head,
            "resid_dropout": 0.0,
            "embed_dropout": 0.0,
            "attention_dropout": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        n_layer = given["num_layers"]
        return ModelConfig.make(
            family="classic",
            vocab_size=given["vocab_size"],
            block_size=given["max_position_embeddings"],
            n_embd=given["hidden_size"],
            n_layer=n_layer,
            n_head=given["num_heads"],
            n_hidden=given.get("intermediate_size") or 4 * given["hidden_size"],
            activation=activation(given.get("activation_function", "gelu_new")),
            norm_eps=given.get("layer_norm_epsilon", 1e-5),
            patterns=patterns_of(_types(given, n_layer), n_layer, given.get("window_size", 256)),
            attention_scale=1.0,
            qkv_bias=False,
            tied_head=given.get("tie_word_embeddings", True),
        )

    def table(self, c: ModelConfig) -> list[Row]:
        rows = [
            one("embedding.token.weight", "transformer.wte.weight"),
            one("positions.weight", "transformer.wpe.weight"),
        ]
        for number in range(c.n_layer):
            here, there = f"blocks.{number}", f"transformer.h.{number}"
            attention = f"{there}.attn.attention"
            rows += [
                *layer(f"{here}.attention_norm", f"{there}.ln_1"),
                *layer(f"{here}.attention.qkv", *(f"{attention}.{part}_proj" for part in "qkv"), bias=False),
                *layer(f"{here}.attention.out", f"{attention}.out_proj"),
                *layer(f"{here}.feedforward_norm", f"{there}.ln_2"),
                *layer(f"{here}.feedforward.up", f"{there}.mlp.c_fc"),
                *layer(f"{here}.feedforward.down", f"{there}.mlp.c_proj"),
            ]
        rows += layer("final_norm", "transformer.ln_f")
        return rows if c.tied_head else [*rows, one("head.weight", "lm_head.weight")]

    def normalize_keys(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        # older files keep the causal mask among the weights
        aside = (".attention.bias", ".attention.masked_bias")
        theirs = {n: t for n, t in theirs.items() if not n.endswith(aside)}
        return with_head(theirs, "transformer.wte.weight", "lm_head.weight", tied=c.tied_head)


def _types(given: dict[str, Any], n_layer: int) -> list[str]:
    """Of each layer, from `attention_layers` or from `attention_types`: [[["global", "local"], 12]] is 24 layers."""
    layers = given.get("attention_layers")
    if layers is None:
        stretches = given.get("attention_types") or [[["global", "local"], 12]]
        layers = [name for names, times in stretches for _ in range(min(times, n_layer)) for name in names]
    if len(layers) != n_layer:
        raise ModelFolderError(f"attention_types names {plural(len(layers), 'layer')} where num_layers={n_layer}")
    if unknown := [name for name in layers if name not in TYPES]:
        raise ModelFolderError(f"attention_types: {unknown[0]!r} is not supported; {' and '.join(TYPES)} are")
    return [TYPES[name] for name in layers]
