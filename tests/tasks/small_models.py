"""Small models of the kinds that tasks are for, in float64, with weights that all matter."""

from __future__ import annotations

from toys import shaken

from glassformer.history import build_history
from glassformer.models import Encoder, EncoderConfig, EncoderDecoder, EncoderDecoderConfig

V, CLASSES = 61, 3
SHAPE = {"vocab_size": V, "block_size": 31, "n_layer": 2, "n_head": 3, "n_embd": 42, "n_hidden": 23}
TOKENS = {"start_token": 1, "end_token": 2}


def encoder(family: str, **heads) -> Encoder:
    return shaken(Encoder(EncoderConfig.make(family=family, **SHAPE, **heads))).double().eval()


def translator(family: str, **changes) -> EncoderDecoder:
    config = EncoderDecoderConfig.make(family=family, **SHAPE, **TOKENS, **changes)
    return shaken(EncoderDecoder(config)).double().eval()


def recurrent(kind: str, **shape):
    return shaken(build_history(kind, vocab_size=V, block_size=31, **shape)).double().eval()
