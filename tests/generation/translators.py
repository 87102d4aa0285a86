"""Small real sequence-to-sequence models, for the tests of decoding."""

from __future__ import annotations

import torch
from toys import shaken, toy_ids

from glassformer.history import build_history
from glassformer.models import EncoderDecoder, EncoderDecoderConfig

START, END = 2, 3


def translator(kind: str = "original", *, seed: int = 0, vocab_size: int = 17, end: float = 0.0, **changes):
    """Layers 2, heads 3 of 14, source vocabulary 19. `end` is added to the end token's logit: answers get short."""
    ids = {"vocab_size": vocab_size, "source_vocab_size": 19, "start_token": START, "end_token": END}
    if kind.startswith("seq2seq"):
        model = build_history(kind, **{**ids, "block_size": 31, "n_embd": 23, "n_hidden": 29, **changes})
    else:
        shape = {"n_layer": 2, "n_head": 3, "n_embd": 42, "n_hidden": 23, "block_size": 31}
        free = {"head_bias": True, "tied_head": False}  # a tied head likes to repeat what it has just read
        model = EncoderDecoder(EncoderDecoderConfig.make(family=kind, **{**ids, **shape, **free, **changes}))
    shaken(model, seed)
    head = model.head if kind.startswith("seq2seq") else model.decoder.head
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "embedding" in name:
                parameter *= 0.5 if kind == "original" else 3  # what is read matters to what is said
        head.bias[END] += end
    return model.eval()


def sources(*lengths: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random source sentences of these lengths, filled up with 0: ids (B, S) and lengths (B,)."""
    ids = toy_ids(len(lengths), max(lengths), vocab_size=19, seed=seed)
    there = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    return ids * there, torch.tensor(lengths)
