"""Whisper: an encoder of sound, a decoder that transcribes it. `WhisperForConditionalGeneration`.

Radford et al. 2022, https://arxiv.org/abs/2212.04356. Its keys have no bias: one would add the same to all scores of a
query, which a softmax does not see. So those of ours are left out when it is written, and nothing changes.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.hub.families.fairseq import Fairseq, stack_rows
from glassformer.hub.families.family import refuse
from glassformer.hub.families.weight_table import Row, Tensors, layer, one, under_one_name
from glassformer.models import EncoderDecoderConfig

WAVES = "model.encoder.embed_positions.weight"


class Whisper(Fairseq):
    """`whisper`."""

    model_type = "whisper"
    architecture = "WhisperForConditionalGeneration"
    sides: ClassVar = (
        {"stem": "frames", "positions": "sinusoidal", "sinusoid_layout": "whisper"},
        {"positions": "learned", "tied_head": True},
    )
    free_of_sides = ("n_mels",)

    def fits(self, c: EncoderDecoderConfig) -> bool:
        return not c.decoder.head_bias

    def extra_keys(self, c: EncoderDecoderConfig) -> dict[str, Any]:
        return {
            "num_mel_bins": c.encoder.n_mels,
            "max_source_positions": c.encoder.block_size,
            "max_target_positions": c.decoder.block_size,
            # the defaults are tokens of OpenAI's vocabulary
            "suppress_tokens": None,
            "begin_suppress_tokens": None,
        }

    def extra_fields(self, given: dict[str, Any]) -> dict[str, Any]:
        refuse(given, "scale_embedding")
        encoder = {"n_mels": given["num_mel_bins"], "vocab_size": 1, "block_size": given["max_source_positions"]}
        decoder = {"vocab_size": given["vocab_size"], "block_size": given["max_target_positions"]}
        return {"encoder": encoder, "decoder": decoder, "shared_embedding": False}

    def table(self, c: EncoderDecoderConfig) -> list[Row]:
        return [
            *layer("encoder.embedding.first", "model.encoder.conv1"),
            *layer("encoder.embedding.second", "model.encoder.conv2"),
            *stack_rows("encoder", c.encoder, key_bias=False),
            *layer("encoder.final_norm", "model.encoder.layer_norm"),
            one("decoder.embedding.token.weight", "model.decoder.embed_tokens.weight"),
            one("decoder.positions.weight", "model.decoder.embed_positions.weight"),
            *stack_rows("decoder", c.decoder, key_bias=False),
            *layer("decoder.final_norm", "model.decoder.layer_norm"),
        ]

    def write_tensors(self, ours: Tensors, c: EncoderDecoderConfig) -> Tensors:
        waves = _waves(c).to(ours["decoder.embedding.token.weight"])
        return {**super().write_tensors(ours, c), WAVES: waves}

    def normalize_keys(self, theirs: Tensors, c: EncoderDecoderConfig) -> Tensors:
        theirs = under_one_name(theirs, "model.decoder.embed_tokens.weight", "proj_out.weight")
        waves = theirs.pop(WAVES)
        shape = (c.encoder.block_size, c.encoder.n_embd)
        if tuple(waves.shape) != shape or not torch.allclose(waves.float(), _waves(c), atol=0.01):
            raise ModelFolderError(f"{WAVES} are not the sines and cosines that our encoder adds")
        return theirs


def _waves(c: EncoderDecoderConfig) -> Tensor:
    """What the encoder adds at each position: (S, C)."""
    S, C = c.encoder.block_size, c.encoder.n_embd
    return c.encoder.build_positions(causal=False).add(torch.zeros(1, S, C), torch.arange(S))[0]
