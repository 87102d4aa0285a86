"""`GPT2LMHeadModel`, and `GPTNeoForCausalLM` (also the TinyStories models), a GPT-2 with windows in every second layer.

GPT-2's `Conv1D` keeps matrices as (in, out), so they are transposed; GPT-Neo keeps them as (out, in), divides scores by
nothing and has no biases on query, key and value.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from glassformer.errors import ModelFolderError, plural
from glassformer.hub.families.family import Family, heads_fill_the_width
from glassformer.hub.families.layer_types import FULL, LOCAL, are_windows_of_one_width, patterns_of, types_of, window_of
from glassformer.hub.families.weight_table import IDENTITY, TRANSPOSE, Layout, Row, layer, one
from glassformer.models import ModelConfig

TYPES = {"global": FULL, "local": LOCAL}


class GPT2(Family):
    """`gpt2`. Biases are always there; those of a model without any are zeros."""

    model_type = "gpt2"
    architecture = "GPT2LMHeadModel"
    keys: ClassVar = {
        "vocab_size": "vocab_size",
        "n_positions": "block_size",
        "n_embd": "n_embd",
        "n_layer": "n_layer",
        "n_head": "n_head",
        "n_inner": "n_hidden",
        "activation_function": "activation",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied_head",
    }
    defaults: ClassVar = {
        "n_inner": None,
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "tie_word_embeddings": True,
    }
    constants: ClassVar = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    fixed: ClassVar = {"positions": "learned", "norm": "layernorm", "feedforward": "plain", "qk_norm": False}
    free = frozenset({"bias"})
    fixed_keys: ClassVar = {"add_cross_attention": False}
    base_prefix = "transformer."
    embedding = "transformer.wte.weight"
    unused = (".attn.bias", ".attn.masked_bias")  # the oldest files keep the causal mask as a tensor
    matrices: ClassVar[Layout] = TRANSPOSE

    def fits(self, c: ModelConfig) -> bool:
        return heads_fill_the_width(c) and c.activation in ("gelu", "gelu_new", "relu", "silu")

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        return {"n_ctx": c.block_size}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        if given.get("scale_attn_by_inverse_layer_idx") or not given.get("scale_attn_weights", True):
            raise ModelFolderError("config.json scales attention scores in a way that our decoder cannot express")
        return {"n_hidden": given["n_inner"] or 4 * given["n_embd"]}

    def table(self, c: ModelConfig) -> list[Row]:
        rows = [
            one("embedding.token.weight", "transformer.wte.weight"),
            one("positions.weight", "transformer.wpe.weight"),
        ]
        for number in range(c.n_layer):
            rows += self.block_rows(f"blocks.{number}", f"transformer.h.{number}")
        rows += layer("final_norm", "transformer.ln_f")
        return rows if c.tied_head else [*rows, one("head.weight", "lm_head.weight")]

    def block_rows(self, here: str, there: str) -> Iterable[Row]:
        yield from layer(f"{here}.attention_norm", f"{there}.ln_1")
        yield from self.attention_rows(f"{here}.attention", f"{there}.attn")
        yield from layer(f"{here}.feedforward_norm", f"{there}.ln_2")
        yield from layer(f"{here}.feedforward.up", f"{there}.mlp.c_fc", layout=self.matrices)
        yield from layer(f"{here}.feedforward.down", f"{there}.mlp.c_proj", layout=self.matrices)

    def attention_rows(self, here: str, there: str) -> Iterable[Row]:
        yield from layer(f"{here}.qkv", f"{there}.c_attn", layout=self.matrices)
        yield from layer(f"{here}.out", f"{there}.c_proj", layout=self.matrices)


class GPTNeo(GPT2):
    """`gpt_neo`."""

    model_type = "gpt_neo"
    architecture = "GPTNeoForCausalLM"
    keys: ClassVar = {
        "vocab_size": "vocab_size",
        "max_position_embeddings": "block_size",
        "hidden_size": "n_embd",
        "num_layers": "n_layer",
        "num_heads": "n_head",
        "intermediate_size": "n_hidden",
        "activation_function": "activation",
        "layer_norm_epsilon": "norm_eps",
        "tie_word_embeddings": "tied_head",
    }
    defaults: ClassVar = {**GPT2.defaults, "intermediate_size": None}
    constants: ClassVar = {"resid_dropout": 0.0, "embed_dropout": 0.0, "attention_dropout": 0.0}
    fixed: ClassVar = {**GPT2.fixed, "bias": True, "qkv_bias": False, "attention_scale": 1.0}
    free = frozenset({"patterns"})
    fixed_keys: ClassVar = {}
    unused = (".attention.bias", ".attention.masked_bias")
    matrices: ClassVar[Layout] = IDENTITY

    def fits(self, c: ModelConfig) -> bool:
        return heads_fill_the_width(c) and are_windows_of_one_width(c)

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        named = {theirs: name for name, theirs in TYPES.items()}
        layers = [named[kind] for kind in types_of(c)]
        window = window_of(c) or c.block_size
        return {"attention_types": [[layers, 1]], "attention_layers": layers, "window_size": window}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        n_layer = given["num_layers"]
        return {
            "n_hidden": given["intermediate_size"] or 4 * given["hidden_size"],
            "patterns": patterns_of(_types(given, n_layer), n_layer, given.get("window_size", 256)),
        }

    def attention_rows(self, here: str, there: str) -> Iterable[Row]:
        yield from layer(f"{here}.qkv", *(f"{there}.attention.{part}_proj" for part in "qkv"), bias=False)
        yield from layer(f"{here}.out", f"{there}.attention.out_proj")


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
