"""Marian: the translator of 2017, in the layout of the Marian toolkit. `MarianMTModel`.

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762; Junczys-Dowmunt et al. 2018, https://arxiv.org/abs/1804.00344.
Norms behind, sines and cosines for positions (all sines first), the head reads with the decoder's embedding and has a
bias.
"""

from __future__ import annotations

from typing import Any, ClassVar

from glassformer.hub.families.fairseq import Fairseq, logit_bias_row, stack_rows, with_logit_bias
from glassformer.hub.families.weight_table import Row, Tensors, one, under_one_name
from glassformer.models import EncoderDecoderConfig

SIDE = {"positions": "sinusoidal", "norm_place": "post", "final_norm": False}


class Marian(Fairseq):
    """`marian`. The bias of the head is always there; if ours has none it is zeros."""

    model_type = "marian"
    architecture = "MarianMTModel"
    preset = "original"
    sides: ClassVar = (SIDE, {**SIDE, "tied_head": True})
    free_of_sides = ("embedding_scale",)
    unused = ("encoder.embed_positions.weight", "decoder.embed_positions.weight")

    def extra_keys(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        return {
            "vocab_size": c.encoder.vocab_size,
            "decoder_vocab_size": c.decoder.vocab_size,
            "share_encoder_decoder_embeddings": c.shared_embedding,
            "max_position_embeddings": max(c.encoder.block_size, c.decoder.block_size),
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        size = {"block_size": given["max_position_embeddings"]}
        sources, targets = given["vocab_size"], given.get("decoder_vocab_size") or given["vocab_size"]
        return {
            "encoder": {**size, "vocab_size": sources},
            "decoder": {**size, "vocab_size": targets, "head_bias": True},
            "shared_embedding": given.get("share_encoder_decoder_embeddings", True),
        }

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        if c.shared_embedding:
            rows = [one("encoder.embedding.token.weight", "model.shared.weight")]
        else:
            sides = ("encoder", "decoder")
            rows = [one(f"{side}.embedding.token.weight", f"model.{side}.embed_tokens.weight") for side in sides]
        return [*rows, *stack_rows("encoder", c.encoder), *stack_rows("decoder", c.decoder), logit_bias_row(c)]

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        names = ["model.decoder.embed_tokens.weight", "lm_head.weight"]
        if c.shared_embedding:
            names = ["model.shared.weight", "model.encoder.embed_tokens.weight", *names]
        return with_logit_bias(under_one_name(super().normalize_keys(theirs, c), *names), names[0])
