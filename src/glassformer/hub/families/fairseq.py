"""What BART, Marian and Whisper have in common: the keys and names that came from fairseq.

theirs, in every layer: self_attn, encoder_attn (each k_proj, v_proj, q_proj, out_proj), fc1, fc2, and three norms
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any, ClassVar

from glassformer.hub.families.family import Family, activation, heads_fill_the_width, matches, special_tokens
from glassformer.hub.families.weight_table import UNSQUEEZE, Row, Tensors, layer
from glassformer.models import EncoderDecoderConfig, ModelConfig

SIDE_KEYS = {"layers": "n_layer", "attention_heads": "n_head", "ffn_dim": "n_hidden"}  # behind `encoder_`, `decoder_`


class Fairseq(Family):
    """An encoder-decoder; `sides` are the fields that its encoder and its decoder have beside `FIXED`."""

    configuration = EncoderDecoderConfig
    FIXED: ClassVar[dict[str, Any]] = {
        "norm": "layernorm",
        "norm_eps": 1e-5,
        "feedforward": "plain",
        "qk_norm": False,
    }
    sides: ClassVar[tuple[dict[str, Any], dict[str, Any]]]
    free_of_sides: ClassVar[Collection[str]] = ()

    def can_represent(self, c: EncoderDecoderConfig) -> bool:
        free = {"n_kv_head", "head_width", "activation", "bias", "head_bias", *self.free_of_sides}
        return (
            all(
                matches(stack, free=free, **{**self.FIXED, **fields}) and heads_fill_the_width(stack)
                for stack, fields in zip((c.encoder, c.decoder), self.sides, strict=True)
            )
            and c.decoder.tied_head
            and c.encoder.activation == c.decoder.activation
            and self.fits(c)
        )

    def fits(self, c: EncoderDecoderConfig) -> bool:
        """Embeddings are as they are or times sqrt(C), in both."""
        scales = {c.encoder.embedding_scale, c.decoder.embedding_scale}
        return len(scales) == 1 and (scales == {1.0} or math.isclose(scales.pop(), math.sqrt(c.decoder.n_embd)))

    def write_config(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        keys: dict[str, Any] = {
            "architectures": [self.architecture],
            "vocab_size": c.decoder.vocab_size,
            "d_model": c.decoder.n_embd,
            "activation_function": c.decoder.activation,
            "scale_embedding": c.decoder.embedding_scale != 1,
            "tie_word_embeddings": True,
            "dropout": 0.0,
            "attention_dropout": 0.0,
            "activation_dropout": 0.0,
        }
        for side, stack in (("encoder", c.encoder), ("decoder", c.decoder)):
            keys |= {f"{side}_{key}": getattr(stack, field) for key, field in SIDE_KEYS.items()}
            keys[f"{side}_layerdrop"] = 0.0
        return {**keys, **self.extra_keys(c)}

    def read_config(self, given: dict[str, Any]) -> EncoderDecoderConfig:
        more = self.extra_fields(given)
        halves = [
            {
                "family": self.preset,
                **self.FIXED,
                **fields,
                "n_embd": given["d_model"],
                **{field: given[f"{side}_{key}"] for key, field in SIDE_KEYS.items()},
                "activation": activation(given.get("activation_function", "gelu")),
                "embedding_scale": math.sqrt(given["d_model"]) if given.get("scale_embedding") else 1.0,
                "bias": True,
                "tied_head": True,
                **more.pop(side),
            }
            for side, fields in zip(("encoder", "decoder"), self.sides, strict=True)
        ]
        return EncoderDecoderConfig.make(encoder=halves[0], decoder=halves[1], **more, **special_tokens(given))


def stack_rows(side: str, c: ModelConfig, *, key_bias: bool = True) -> list[Row]:
    """The rows of all blocks of `encoder` or `decoder`."""
    rows: list[Row] = []
    for number in range(c.n_layer):
        here, there = f"{side}.blocks.{number}", f"model.{side}.layers.{number}"
        own, cross = f"{there}.self_attn", f"{there}.encoder_attn"
        unbiased = [None if key_bias else f"{attention}.k_proj" for attention in (own, cross)]
        rows += [
            *layer(f"{here}.attention.qkv", *(f"{own}.{part}_proj" for part in "qkv"), unbiased=unbiased[0]),
            *layer(f"{here}.attention.out", f"{own}.out_proj"),
            *layer(f"{here}.attention_norm", f"{own}_layer_norm"),
            *layer(f"{here}.feedforward.up", f"{there}.fc1"),
            *layer(f"{here}.feedforward.down", f"{there}.fc2"),
            *layer(f"{here}.feedforward_norm", f"{there}.final_layer_norm"),
        ]
        if side == "decoder":
            key_value = (f"{cross}.{part}_proj" for part in "kv")
            rows += [
                *layer(f"{here}.cross_attention.query", f"{cross}.q_proj"),
                *layer(f"{here}.cross_attention.key_value", *key_value, unbiased=unbiased[1]),
                *layer(f"{here}.cross_attention.out", f"{cross}.out_proj"),
                *layer(f"{here}.cross_norm", f"{cross}_layer_norm"),
            ]
    return rows


def logit_bias_row(c: EncoderDecoderConfig) -> Row:
    """The row of `final_logits_bias`, (1, V)."""
    side = "encoder" if c.shared_embedding else "decoder"
    return Row("decoder.head.bias", ("final_logits_bias",), UNSQUEEZE, like=f"{side}.embedding.token.weight")


def with_logit_bias(theirs: Tensors, embedding: str) -> Tensors:
    """With `final_logits_bias`, which is zero where a file leaves it out."""
    if "final_logits_bias" in theirs or embedding not in theirs:
        return theirs
    return {**theirs, "final_logits_bias": theirs[embedding].new_zeros(1, len(theirs[embedding]))}
