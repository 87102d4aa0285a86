"""Marian: the translator of 2017, in the layout of the Marian toolkit. `MarianMTModel`.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344.
Norms behind, sines and cosines for positions (all sines first), the head reads with the decoder's embedding and has a
bias.
"""

from __future__ import annotations

from typing import Any

from glassformer.hub.families.fairseq import fits, read_words, scale_fits, stack, write_words
from glassformer.hub.families.family import Family, special_tokens
from glassformer.hub.families.weight_table import UNSQUEEZE, Row, Tensors, one, under_one_name
from glassformer.models import EncoderDecoderConfig


class Marian(Family):
    """`marian`. The bias of the head is always there; if ours has none it is zeros."""

    model_type = "marian"
    configuration = EncoderDecoderConfig

    def can_represent(self, c: EncoderDecoderConfig) -> bool:
        e, d = c.encoder, c.decoder
        form: dict[str, Any] = {"positions": "sinusoidal", "norm_place": "post", "final_norm": False}
        return (
            fits(e, free={"embedding_scale"}, **form)
            and fits(d, free={"embedding_scale"}, tied_head=True, **form)
            and scale_fits(c)
            and e.activation == d.activation
        )

    def write_config(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        return {
            "architectures": ["MarianMTModel"],
            "vocab_size": c.encoder.vocab_size,
            "decoder_vocab_size": c.decoder.vocab_size,
            "share_encoder_decoder_embeddings": c.shared_embedding,
            "max_position_embeddings": max(c.encoder.block_size, c.decoder.block_size),
            **write_words(c),
        }

    def read_config(self, given: dict[str, Any]) -> EncoderDecoderConfig:
        shape = {
            "family": "original",
            "block_size": given["max_position_embeddings"],
            "positions": "sinusoidal",
            "norm_place": "post",
            "final_norm": False,
        }
        sources, targets = given["vocab_size"], given.get("decoder_vocab_size") or given["vocab_size"]
        return EncoderDecoderConfig.make(
            encoder={**shape, **read_words(given, "encoder"), "vocab_size": sources},
            decoder={**shape, **read_words(given, "decoder"), "vocab_size": targets, "head_bias": True},
            shared_embedding=given.get("share_encoder_decoder_embeddings", True),
            **special_tokens(given),
        )

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        if c.shared_embedding:
            rows = [one("encoder.embedding.token.weight", "model.shared.weight")]
        else:
            sides = ("encoder", "decoder")
            rows = [one(f"{side}.embedding.token.weight", f"model.{side}.embed_tokens.weight") for side in sides]
        return [
            *rows,
            *stack("encoder", c.encoder, cross=False),
            *stack("decoder", c.decoder, cross=True),
            bias_of_logits(c),
        ]

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        waves = [f"model.{side}.embed_positions.weight" for side in ("encoder", "decoder")]
        theirs = {name: tensor for name, tensor in theirs.items() if name not in waves}
        names = ["model.decoder.embed_tokens.weight", "lm_head.weight"]
        if c.shared_embedding:
            names = ["model.shared.weight", "model.encoder.embed_tokens.weight", *names]
        return with_bias_of_logits(under_one_name(theirs, *names), names[0])


def bias_of_logits(c: EncoderDecoderConfig) -> Row:
    """The row of `final_logits_bias`, (1, V)."""
    side = "encoder" if c.shared_embedding else "decoder"
    return Row("decoder.head.bias", ("final_logits_bias",), UNSQUEEZE, like=f"{side}.embedding.token.weight")


def with_bias_of_logits(theirs: Tensors, embedding: str) -> Tensors:
    """A file may leave it out, and then it is zero."""
    if "final_logits_bias" in theirs or embedding not in theirs:
        return theirs
    return {**theirs, "final_logits_bias": theirs[embedding].new_zeros(1, len(theirs[embedding]))}
