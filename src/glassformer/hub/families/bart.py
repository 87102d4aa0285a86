"""BART: an encoder and a decoder trained to repair text. `BartForConditionalGeneration`.

Lewis et al. 2019, https://arxiv.org/abs/1910.13461. Norms behind and one on the embedding; learned positions, of which
the first two rows of the table are never used.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from glassformer.hub.families.fairseq import Fairseq, logit_bias_row, stack_rows, with_logit_bias
from glassformer.hub.families.weight_table import Layout, Row, Tensors, layer, one, under_one_name
from glassformer.models import EncoderDecoderConfig

UNUSED_ROWS = 2
AFTER_UNUSED_ROWS = Layout(
    lambda ours: torch.cat((ours.new_zeros(UNUSED_ROWS, ours.shape[1]), ours)), lambda theirs: theirs[UNUSED_ROWS:]
)
SIDE = {"positions": "learned", "norm_place": "post", "final_norm": False, "embedding_norm": True}


class BART(Fairseq):
    """`bart`. The bias of the head is always there; if ours has none it is zeros."""

    model_type = "bart"
    architecture = "BartForConditionalGeneration"
    preset = "original"
    sides: ClassVar = (SIDE, {**SIDE, "tied_head": True})
    free_of_sides = ("embedding_scale",)

    def fits(self, c: EncoderDecoderConfig) -> bool:
        return super().fits(c) and c.encoder.block_size == c.decoder.block_size and c.shared_embedding

    def extra_keys(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        return {"max_position_embeddings": c.decoder.block_size}

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        sizes = {"vocab_size": given["vocab_size"], "block_size": given["max_position_embeddings"]}
        return {"encoder": sizes, "decoder": {**sizes, "head_bias": True}}

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        rows = [one("encoder.embedding.token.weight", "model.shared.weight")]
        for side, stack in (("encoder", c.encoder), ("decoder", c.decoder)):
            rows += [
                one(f"{side}.positions.weight", f"model.{side}.embed_positions.weight", AFTER_UNUSED_ROWS),
                *layer(f"{side}.embedding.norm", f"model.{side}.layernorm_embedding"),
                *stack_rows(side, stack),
            ]
        return [*rows, logit_bias_row(c)]

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        names = [f"model.{side}.embed_tokens.weight" for side in ("encoder", "decoder")]
        theirs = under_one_name(theirs, "model.shared.weight", *names, "lm_head.weight")
        return with_logit_bias(theirs, "model.shared.weight")
