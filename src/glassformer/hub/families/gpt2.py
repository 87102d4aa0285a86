"""`GPT2LMHeadModel`: classic decoders. Its `Conv1D` keeps matrices as (in, out), so they are turned."""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.errors import ModelFolderError
from glassformer.hub.families.family import Family, activation, agrees, heads_fill_the_width
from glassformer.hub.families.weight_table import TRANSPOSE, Row, Tensors, layer, one, with_head
from glassformer.models import ModelConfig


class GPT2(Family):
    """`gpt2`. Biases are always there; those of a model without any are zeros."""

    model_type = "gpt2"
    configuration = ModelConfig
    base_prefix = "transformer."
    fixed_words: ClassVar = {"add_cross_attention": False}

    def can_represent(self, c: ModelConfig) -> bool:
        return (
            agrees(
                c,
                free={"n_kv_head", "head_width", "norm_eps", "activation", "bias", "tied_head"},
                positions="learned",
                norm="layernorm",
                feedforward="plain",
                qk_norm=False,
            )
            and heads_fill_the_width(c)
            and c.activation in ("gelu", "gelu_new", "relu", "silu")
        )

    def write_config(self, c: ModelConfig) -> dict[str, Any]:
        return {
            "architectures": ["GPT2LMHeadModel"],
            "vocab_size": c.vocab_size,
            "n_positions": c.block_size,
            "n_ctx": c.block_size,
            "n_embd": c.n_embd,
            "n_layer": c.n_layer,
            "n_head": c.n_head,
            "n_inner": c.n_hidden,
            "activation_function": c.activation,
            "layer_norm_epsilon": c.norm_eps,
            "tie_word_embeddings": c.tied_head,
            "resid_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> ModelConfig:
        if given.get("scale_attn_by_inverse_layer_idx") or not given.get("scale_attn_weights", True):
            raise ModelFolderError("config.json scales attention scores in a way that our decoder cannot express")
        return ModelConfig.make(
            family="classic",
            vocab_size=given["vocab_size"],
            block_size=given["n_positions"],
            n_embd=given["n_embd"],
            n_layer=given["n_layer"],
            n_head=given["n_head"],
            n_hidden=given.get("n_inner") or 4 * given["n_embd"],
            activation=activation(given.get("activation_function", "gelu_new")),
            norm_eps=given.get("layer_norm_epsilon", 1e-5),
            tied_head=given.get("tie_word_embeddings", True),
        )

    def table(self, c: ModelConfig) -> list[Row]:
        rows = [
            one("embedding.token.weight", "transformer.wte.weight"),
            one("positions.weight", "transformer.wpe.weight"),
        ]
        for number in range(c.n_layer):
            here, there = f"blocks.{number}", f"transformer.h.{number}"
            rows += [
                *layer(f"{here}.attention_norm", f"{there}.ln_1"),
                *layer(f"{here}.attention.qkv", f"{there}.attn.c_attn", form=TRANSPOSE),
                *layer(f"{here}.attention.out", f"{there}.attn.c_proj", form=TRANSPOSE),
                *layer(f"{here}.feedforward_norm", f"{there}.ln_2"),
                *layer(f"{here}.feedforward.up", f"{there}.mlp.c_fc", form=TRANSPOSE),
                *layer(f"{here}.feedforward.down", f"{there}.mlp.c_proj", form=TRANSPOSE),
            ]
        rows += layer("final_norm", "transformer.ln_f")
        return rows if c.tied_head else [*rows, one("head.weight", "lm_head.weight")]

    def normalize_keys(self, theirs: Tensors, c: ModelConfig) -> Tensors:
        # the oldest files keep the causal mask as a tensor
        theirs = {n: t for n, t in theirs.items() if not n.endswith((".attn.bias", ".attn.masked_bias"))}
        return with_head(theirs, "transformer.wte.weight", "lm_head.weight", tied=c.tied_head)
