"""T5: encoder and decoder with distances in buckets, and norms without a mean. `T5ForConditionalGeneration`.

Raffel et al. 2020, https://arxiv.org/abs/1910.10683. Two versions: the first has a ReLU layer and reads its logits off
the embedding, scaled by 1 / sqrt(C); 1.1 has a gated layer and a head of its own, unscaled.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

from glassformer.hub.families.family import Family, activation, matches, special_tokens
from glassformer.hub.families.weight_table import Row, Tensors, layer, one, under_one_name, with_head
from glassformer.models import EncoderDecoderConfig, ModelConfig


class T5(Family):
    """`t5`. Its keys are of both sides."""

    model_type = "t5"
    architecture = "T5ForConditionalGeneration"
    configuration = EncoderDecoderConfig
    preset = "modern"
    keys: ClassVar = {
        "vocab_size": "vocab_size",
        "d_model": "n_embd",
        "d_kv": "head_width",
        "d_ff": "n_hidden",
        "num_heads": "n_head",
        "relative_attention_num_buckets": "relative_buckets",
        "relative_attention_max_distance": "relative_max_distance",
        "layer_norm_epsilon": "norm_eps",
    }
    defaults: ClassVar = {
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "layer_norm_epsilon": 1e-6,
    }
    fixed: ClassVar = {
        "positions": "relative",
        "norm": "rmsnorm",
        "bias": False,
        "qk_norm": False,
        "attention_scale": 1.0,
    }
    base_prefix = ""

    def can_represent(self, c: EncoderDecoderConfig) -> bool:
        e, d = c.encoder, c.decoder
        shared = {*self.keys.values(), "feedforward", "activation"}
        free = {*shared, "n_kv_head", "tied_head", "logit_scale"}
        return (
            all(matches(side, free=free, **self.fixed) and side.n_kv_head == side.n_head for side in (e, d))
            and all(getattr(e, field) == getattr(d, field) for field in shared)
            and math.isclose(d.logit_scale, _logit_scale(d.n_embd, tied=d.tied_head))
            and d.feedforward != "clamped"
            and (d.feedforward, d.activation) != ("gated", "gelu")  # their gated GELU is the other one
            and c.shared_embedding
        )

    def write_config(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        d = c.decoder
        kind = {"gelu_new": "gelu"}.get(d.activation, d.activation) if d.feedforward == "gated" else d.activation
        return {
            "architectures": [self.architecture],
            **{key: getattr(d, field) for key, field in self.keys.items()},
            "n_positions": max(c.encoder.block_size, d.block_size),
            "num_layers": c.encoder.n_layer,
            "num_decoder_layers": d.n_layer,
            "feed_forward_proj": f"gated-{kind}" if d.feedforward == "gated" else kind,
            # transformers 4 takes the first for both questions, transformers 5 asks the second as well
            "tie_word_embeddings": d.tied_head,
            "scale_decoder_outputs": d.tied_head,
            "dropout_rate": 0.0,
        }

    def read_config(self, given: dict[str, Any]) -> EncoderDecoderConfig:
        given = self.with_defaults(given)
        proj = given.get("feed_forward_proj", "relu")
        tied = given.get("scale_decoder_outputs", given.get("tie_word_embeddings", True))
        shape = {
            "family": self.preset,
            **self.fixed,
            **{field: given[key] for key, field in self.keys.items()},
            "block_size": given.get("n_positions", 512),
            "feedforward": "gated" if proj.startswith("gated-") else "plain",
            "activation": "gelu_new" if proj == "gated-gelu" else activation(proj.removeprefix("gated-")),
            "tied_head": tied,
        }
        layers = given["num_layers"], given.get("num_decoder_layers") or given["num_layers"]
        return EncoderDecoderConfig.make(
            encoder={**shape, "n_layer": layers[0]},
            decoder={**shape, "n_layer": layers[1], "logit_scale": _logit_scale(given["d_model"], tied=tied)},
            **special_tokens(given),
        )

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        rows = [one("encoder.embedding.token.weight", "shared.weight")]
        rows += _stack("encoder", c.encoder, cross=False)
        rows += _stack("decoder", c.decoder, cross=True)
        return rows if c.decoder.tied_head else [*rows, one("decoder.head.weight", "lm_head.weight")]

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        theirs = under_one_name(theirs, "shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
        # some old files have a table of distances where nothing has a distance
        unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
        theirs = {name: tensor for name, tensor in theirs.items() if name != unused}
        return with_head(theirs, "shared.weight", "lm_head.weight", tied=c.decoder.tied_head)


def _logit_scale(n_embd: int, *, tied: bool) -> float:
    return float(n_embd**-0.5) if tied else 1.0


def _stack(side: str, c: ModelConfig, *, cross: bool) -> list[Row]:
    """The rows of encoder or decoder; its distances lie in the first layer there."""
    distances = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    rows = [one(f"{side}.positions.weight", distances)]
    for number in range(c.n_layer):
        here, there = f"{side}.blocks.{number}", f"{side}.block.{number}.layer"
        looks, listens, computes = f"{there}.0", f"{there}.1", f"{there}.{2 if cross else 1}"
        rows += [
            one(f"{here}.attention_norm.weight", f"{looks}.layer_norm.weight"),
            *layer(f"{here}.attention.qkv", *(f"{looks}.SelfAttention.{part}" for part in "qkv"), bias=False),
            one(f"{here}.attention.out.weight", f"{looks}.SelfAttention.o.weight"),
            one(f"{here}.feedforward_norm.weight", f"{computes}.layer_norm.weight"),
            one(f"{here}.feedforward.down.weight", f"{computes}.DenseReluDense.wo.weight"),
        ]
        if c.feedforward == "gated":
            halves = (f"{computes}.DenseReluDense.wi_{half}" for half in (0, 1))
            rows += layer(f"{here}.feedforward.gate_up", *halves, bias=False)
        else:
            rows += [one(f"{here}.feedforward.up.weight", f"{computes}.DenseReluDense.wi.weight")]
        if cross:
            attention = f"{listens}.EncDecAttention"
            rows += [
                one(f"{here}.cross_norm.weight", f"{listens}.layer_norm.weight"),
                one(f"{here}.cross_attention.query.weight", f"{attention}.q.weight"),
                *layer(f"{here}.cross_attention.key_value", f"{attention}.k", f"{attention}.v", bias=False),
                one(f"{here}.cross_attention.out.weight", f"{attention}.o.weight"),
            ]
    return [*rows, one(f"{side}.final_norm.weight", f"{side}.final_layer_norm.weight")]
