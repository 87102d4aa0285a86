"""`GPTNeoXForCausalLM`, also the Pythias: attention and feed-forward side by side, and a part of each head rotated.

Black et al. 2022, https://arxiv.org/abs/2204.06745, sect. 2.1. The rows of query, key and value alternate there head by
head, where ours has all queries first:

    theirs  q0 k0 v0 q1 k1 v1 ...        ours  q0 q1 ... k0 k1 ... v0 v1 ...
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

from torch import Tensor

from glassformer.hub.families.family import DECODER_KEYS, Family, heads_fill_the_width
from glassformer.hub.families.rope import SCALINGS, rope_of, scaling_keys, scaling_of
from glassformer.hub.families.weight_table import Layout, Row, Tensors, layer, one
from glassformer.models import ModelConfig


class GPTNeoX(Family):
    """`gpt_neox`."""

    model_type = "gpt_neox"
    architecture = "GPTNeoXForCausalLM"
    keys: ClassVar = {
        **DECODER_KEYS,
        "layer_norm_eps": "norm_eps",
        "use_parallel_residual": "parallel",
        # transformers 4 reads these, transformers 5 `rope_parameters`
        "rotary_emb_base": "rotary_base",
        "rotary_pct": "rotary_fraction",
    }
    defaults: ClassVar = {
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-5,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "rotary_emb_base": 10_000.0,
        "rotary_pct": 0.25,
    }
    constants: ClassVar = {"attention_dropout": 0.0, "hidden_dropout": 0.0}
    fixed: ClassVar = {
        "positions": "rotary",
        "norm": "layernorm",
        "feedforward": "plain",
        "bias": True,
        "qk_norm": False,
    }
    free = frozenset({"rotary_scaling", "qkv_bias", "out_bias"})
    base_prefix = "gpt_neox."
    embedding, head = "gpt_neox.embed_in.weight", "embed_out.weight"
    unused = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")

    def fits(self, c: ModelConfig) -> bool:
        scaling = c.rotary_scaling
        return (
            heads_fill_the_width(c) and c.qkv_bias == c.out_bias and (scaling is None or scaling.rope_type in SCALINGS)
        )

    def extra_keys(self, c: ModelConfig) -> dict[str, Any]:
        rotated = {"rope_theta": c.rotary_base, "partial_rotary_factor": c.rotary_fraction}
        return {
            "attention_bias": c.biases()[0],
            **({} if c.rotary_scaling is None else {"rope_scaling": scaling_keys(c)}),
            "rope_parameters": {**scaling_keys(c), **rotated},
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        rope, biases = rope_of(given), bool(given.get("attention_bias", True))
        return {
            "rotary_base": float(rope.get("rope_theta", given["rotary_emb_base"])),
            "rotary_fraction": float(rope.get("partial_rotary_factor", given["rotary_pct"])),
            "rotary_scaling": scaling_of(rope, given["max_position_embeddings"]),
            "qkv_bias": biases,
            "out_bias": biases,
        }

    def table(self, c: ModelConfig) -> list[Row]:
        alternating = Layout(partial(_by_head, c.n_head), partial(_by_part, c.n_head))
        biased = c.biases()[0]
        rows = [one("embedding.token.weight", "gpt_neox.embed_in.weight")]
        for number in range(c.n_layer):
            here, there = f"blocks.{number}", f"gpt_neox.layers.{number}"
            qkv, theirs = f"{here}.attention.qkv", f"{there}.attention.query_key_value"
            rows += [
                *layer(f"{here}.attention_norm", f"{there}.input_layernorm"),
                *(one(f"{qkv}.{kind}", f"{theirs}.{kind}", alternating) for kind in ("weight", "bias")[: 1 + biased]),
                *layer(f"{here}.attention.out", f"{there}.attention.dense", bias=biased),
                *layer(f"{here}.feedforward_norm", f"{there}.post_attention_layernorm"),
                *layer(f"{here}.feedforward.up", f"{there}.mlp.dense_h_to_4h"),
                *layer(f"{here}.feedforward.down", f"{there}.mlp.dense_4h_to_h"),
            ]
        rows += layer("final_norm", "gpt_neox.final_layer_norm")
        return rows if c.tied_head else [*rows, one("head.weight", "embed_out.weight")]

    def normalize_keys(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        # newer files may call the head as other families do
        theirs = {self.head if name == "lm_head.weight" else name: tensor for name, tensor in theirs.items()}
        return super().normalize_keys(theirs, c)


def _by_head(n_head: int, rows: Tensor) -> Tensor:
    """(3 H D, ...) with all queries first, then keys and values -> head by head."""
    return rows.unflatten(0, (3, n_head, -1)).transpose(0, 1).flatten(0, 2)


def _by_part(n_head: int, rows: Tensor) -> Tensor:
    """The way back."""
    return rows.unflatten(0, (n_head, 3, -1)).transpose(0, 1).flatten(0, 2)
