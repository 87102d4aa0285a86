"""Where a model of speech listens while it writes each token: cross-attention over the frames of a sound."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.speech_tokens import SpeechTokens
from glassformer.generation.transcribe import TranscriptionSettings, check_speech, encode, transcribe
from glassformer.generation.word_times import Word, alignment_heads, cross_patterns
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.tokenizers import Tokenizer


@dataclass(frozen=True)
class SpeechAttention:
    """tokens: (T,) as texts. weights_TS: the mean of `heads`, over the vectors that the sound fills; a row adds up to 1
    with what falls on the silence behind. frames_MF: log-mel, two frames a vector. heads: (layer, head). step: seconds
    of a vector. words: with their times; () of a model without Whisper's tokens."""

    tokens: list[str]
    weights_TS: np.ndarray
    frames_MF: np.ndarray
    heads: list[tuple[int, int]]
    step: float
    words: tuple[Word, ...] = ()


def speech_attention(
    model: Any,
    tokenizer: Tokenizer,
    processor: AudioProcessor,
    sound: Any,
    *,
    beam: int = 1,
    heads: Sequence[tuple[int, int]] | None = None,
) -> SpeechAttention:
    """The attention of each token that a model writes for a sound of one window.

    Args:
        heads: (layer, head) of those whose mean is taken; None: `alignment_heads`.

    Raises:
        UsageError: the sound is longer than a window, nothing is said in it, or there is no such head. Also as
            `transcribe`.
    """
    check_speech(model, processor)
    samples = processor.samples(sound)
    if len(samples) > processor.n_samples:
        raise UsageError(f"{len(samples) / processor.rate:.0f} seconds; attention is drawn over {processor.seconds}")
    special = SpeechTokens.of(model, tokenizer)
    settings = TranscriptionSettings(beam=beam, times=False, words=special is not None)
    (found,) = transcribe(model, tokenizer, processor, [samples], settings)
    ids = [
        i
        for segment in found.segments
        for i in (segment.tokens if special is None else special.text_ids(segment.tokens))
    ]
    if not ids:
        raise UsageError("the model hears no speech in this sound, so there is no token to look at")
    prompt = [model.config.start_token] if special is None else special.prompt(times=False)
    with evaluating(model):
        vectors_1SC: Tensor = encode(model, processor, [samples], None)
        patterns_LHTS = cross_patterns(model, vectors_1SC, [*prompt, *ids[:-1]])
    L, H = patterns_LHTS.shape[:2]
    chosen = alignment_heads(model, L, H) if heads is None else list(heads)
    for layer, head in chosen:
        if not (0 <= layer < L and 0 <= head < H):
            raise UsageError(f"layer {layer}, head {head}: the decoder has the layers 0 to {L - 1}, heads 0 to {H - 1}")
    mean_TS = torch.stack([patterns_LHTS[a, b] for a, b in chosen]).mean(dim=0)[len(prompt) - 1 :]
    n = -(-len(samples) // (2 * processor.hop))  # vectors that the sound fills
    return SpeechAttention(
        [tokenizer.token_text(i) for i in ids],
        mean_TS[:, :n].numpy(),
        processor.encode(samples)[:, : 2 * n],
        chosen,
        2 * processor.hop / processor.rate,
        tuple(word for segment in found.segments for word in segment.words),
    )
