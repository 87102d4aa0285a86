"""`GPTNeoXForCausalLM`, also the Pythias: attention and feed-forward side by side, and a part of each head turned.

Black et al. 2022, https://arxiv.org/abs/2204.06745, sect. 2.1. The rows of query, key and value alternate there head by
head, where ours has all queries first:

    theirs  q0 k0 v0 q1 k1 v1 ...        ours  q0 q1 ... k0 k1 ... v0 v1 ...
"""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from glassformer.hub.families.family import Family, activation, agrees, heads_fill_the_width, is_known_activation
from glassformer.hub.families.modern import SCALINGS, rope_of, scaling_of
from glassformer.hub.families.weight_table import Form, Row, Tensors, layer, one, with_head
from glassformer.models import ModelConfig


class GPTNeoX(Family):
    """`gpt_neox`."""

    model_type = "gpt_neox"
    configuration = ModelConfig
    base_prefix = "gpt_neox."

    def can_represent(self, c: ModelConfig) -> bool:
        return (
            agrees(
                c,
                free={
                    *("n_kv_head", "head_width", "norm_eps", "activation", "tied_head", "parallel"),
                    *("rotary_base", "rotary_fraction", "rotary_scaling", "qkv_bias", "out_bias"),
                },
                positions="rotary",
                norm="layernorm",
                feedforward="plain",
                bias=True,
                qk_norm=False,
            )
            and heads_fill_the_width(c)
            and c.qkv_bias == c.out_bias
            and is_known_activation(c.activation)
            and (c.rotary_scaling is None or c.rotary_scaling.rope_type in SCALINGS)
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        scaling = {"rope_type": "default"} if c.rotary_scaling is None else c.rotary_scaling.words()
        turned = {"rope_theta": c.rotary_base, "partial_rotary_factor": c.rotary_fraction}
        return {
            "architectures": ["GPTNeoXForCausalLM"],
            "vocab_size": c.vocab_size,
            "max_position_embeddings": c.block_size,
            "hidden_size": c.n_embd,
            "num_hidden_layers": c.n_layer,
            "num_attention_heads": c.n_head,
            "intermediate_size": c.n_hidden,
            "hidden_act": c.activation,
            "layer_norm_eps": c.norm_eps,
            "use_parallel_residual": c.parallel,
            "attention_bias": c.biases()[0],
            # transformers 4 reads the first three, transformers 5 the last
            "rotary_emb_base": c.rotary_base,
            "rotary_pct": c.rotary_fraction,
            **({} if c.rotary_scaling is None else {"rope_scaling": scaling}),
            "rope_parameters": {**scaling, **turned},
            "tie_word_embeddings": c.tied_head,
            "attention_dropout": 0.0,
            "hidden_dropout": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        rope, biases = rope_of(given), given.get("attention_bias", True)
        base, part = given.get("rotary_emb_base", 10_000.0), given.get("rotary_pct", 0.25)
        return ModelConfig.make(
            family="classic",
            vocab_size=given["vocab_size"],
            block_size=given["max_position_embeddings"],
            n_embd=given["hidden_size"],
            n_layer=given["num_hidden_layers"],
            n_head=given["num_attention_heads"],
            n_hidden=given["intermediate_size"],
            activation=activation(given.get("hidden_act", "gelu")),
            norm_eps=given.get("layer_norm_eps", 1e-5),
            positions="rotary",
            rotary_base=float(rope.get("rope_theta", base)),
            rotary_fraction=float(rope.get("partial_rotary_factor", part)),
            rotary_scaling=scaling_of(rope, given["max_position_embeddings"]),
            parallel=given.get("use_parallel_residual", True),
            qkv_bias=bool(biases),
            out_bias=bool(biases),
            tied_head=given.get("tie_word_embeddings", False),
        )

    def table(self, c: ModelConfig) -> list[Row]:
        alternating = Form(partial(_by_head, c.n_head), partial(_by_part, c.n_head))
        rows = [one("embedding.token.weight", "gpt_neox.embed_in.weight")]
        for number in range(c.n_layer):
            here, there = f"blocks.{number}", f"gpt_neox.layers.{number}"
            qkv = f"{here}.attention.qkv", f"{there}.attention.query_key_value"
            biased = c.biases()[0]
            rows += [
                *layer(f"{here}.attention_norm", f"{there}.input_layernorm"),
                *(
                    one(f"{qkv[0]}.{kind}", f"{qkv[1]}.{kind}", alternating)
                    for kind in ("weight", "bias")[: 1 + biased]
                ),
                *layer(f"{here}.attention.out", f"{there}.attention.dense", bias=biased),
                *layer(f"{here}.feedforward_norm", f"{there}.post_attention_layernorm"),
                *layer(f"{here}.feedforward.up", f"{there}.mlp.dense_h_to_4h"),
                *layer(f"{here}.feedforward.down", f"{there}.mlp.dense_4h_to_h"),
            ]
        rows += layer("final_norm", "gpt_neox.final_layer_norm")
        return rows if c.tied_head else [*rows, one("head.weight", "embed_out.weight")]

    def normalize_keys(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        # older files keep the causal mask and the frequencies; newer ones may call the head as other families do
        aside = (".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq")
        theirs = {n: t for n, t in theirs.items() if not n.endswith(aside)}
        theirs = {"embed_out.weight" if n == "lm_head.weight" else n: t for n, t in theirs.items()}
        return with_head(theirs, "gpt_neox.embed_in.weight", "embed_out.weight", tied=c.tied_head)


def _by_head(n_head: int, rows: Tensor) -> Tensor:
    """(3 H D, ...) with all queries first, then keys and values -> head by head."""
    return rows.unflatten(0, (3, n_head, -1)).transpose(0, 1).flatten(0, 2)


def _by_part(n_head: int, rows: Tensor) -> Tensor:
    """The way back."""
    return rows.unflatten(0, (n_head, 3, -1)).transpose(0, 1).flatten(0, 2)
