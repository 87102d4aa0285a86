"""BART: an encoder and a decoder trained to repair text. `BartForConditionalGeneration`.

Lewis et al. 2019, https://arxiv.org/abs/1910.13461. Norms behind and one on the embedding; learned positions, of which
the first two rows of the table are never used.
"""

from __future__ import annotations

from typing import Any

import torch

from glassformer.hub.families.fairseq import fits, read_words, scale_fits, stack, write_words
from glassformer.hub.families.family import Family, special_tokens
from glassformer.hub.families.marian import bias_of_logits, with_bias_of_logits
from glassformer.hub.families.weight_table import Layout, Row, Tensors, layer, one, under_one_name
from glassformer.models import EncoderDecoderConfig

UNUSED_ROWS = 2
AFTER_UNUSED_ROWS = Layout(
    lambda ours: torch.cat((ours.new_zeros(UNUSED_ROWS, ours.shape[1]), ours)), lambda theirs: theirs[UNUSED_ROWS:]
)


class BART(Family):
    """`bart`. The bias of the head is always there; if ours has none it is zeros."""

    model_type = "bart"
    configuration = EncoderDecoderConfig

    def can_represent(self, c: EncoderDecoderConfig) -> bool:
        e, d = c.encoder, c.decoder
        form: dict[str, Any] = {
            "positions": "learned",
            "norm_place": "post",
            "final_norm": False,
            "embedding_norm": True,
        }
        return (
            fits(e, free={"embedding_scale"}, **form)
            and fits(d, free={"embedding_scale"}, tied_head=True, **form)
            and scale_fits(c)
            and (e.activation, e.block_size) == (d.activation, d.block_size)
            and c.shared_embedding
        )

    def write_config(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        return {
            "architectures": ["BartForConditionalGeneration"],
            "vocab_size": c.decoder.vocab_size,
            "max_position_embeddings": c.decoder.block_size,
            **write_words(c),
        }

    def read_config(self, given: dict[str, Any]) -> EncoderDecoderConfig:
        shape = {
            "family": "original",
            "vocab_size": given["vocab_size"],
            "block_size": given["max_position_embeddings"],
            "positions": "learned",
            "norm_place": "post",
            "final_norm": False,
            "embedding_norm": True,
        }
        return EncoderDecoderConfig.make(
            encoder={**shape, **read_words(given, "encoder")},
            decoder={**shape, **read_words(given, "decoder"), "head_bias": True},
            **special_tokens(given),
        )

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        rows = [one("encoder.embedding.token.weight", "model.shared.weight")]
        for side, cross, stack_of in (("encoder", False, c.encoder), ("decoder", True, c.decoder)):
            rows += [
                one(f"{side}.positions.weight", f"model.{side}.embed_positions.weight", AFTER_UNUSED_ROWS),
                *layer(f"{side}.embedding.norm", f"model.{side}.layernorm_embedding"),
                *stack(side, stack_of, cross=cross),
            ]
        return [*rows, bias_of_logits(c)]

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        names = [f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
        theirs = under_one_name(theirs, "model.shared.weight", *names, "lm_head.weight")
        return with_bias_of_logits(theirs, "model.shared.weight")
