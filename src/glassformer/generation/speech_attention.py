"""Where a model of speech listens while it writes each token: cross-attention over the frames of a sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.speech_tokens import SpeechTokens
from glassformer.generation.transcribe import TranscriptionSettings, check_speech, transcribe
from glassformer.models import settings_of
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.tokenizers import Tokenizer
from glassformer.taps import listening, named_taps


@dataclass(frozen=True)
class SpeechAttention:
    """tokens: (T,) as texts. weights_TS: the mean of `heads`, over the vectors that the sound fills; a row adds up to 1
    with what falls on the silence behind. frames_MF: log-mel, two frames a vector. heads: (layer, head). step: seconds
    of a vector."""

    tokens: list[str]
    weights_TS: np.ndarray
    frames_MF: np.ndarray
    heads: list[tuple[int, int]]
    step: float


def speech_attention(
    model: Any, tokenizer: Tokenizer, processor: AudioProcessor, sound: Any, *, beam: int = 1
) -> SpeechAttention:
    """The attention of each token that a model writes for a sound of one window.

    The heads are those that the model's folder names for aligning words with time (`alignment_heads`, OpenAI's choice),
    else all of the decoder.

    Raises:
        UsageError: the sound is longer than a window, or nothing is said in it. Also as `transcribe`.
    """
    check_speech(model, processor)
    samples = processor.samples(sound)
    if len(samples) > processor.n_samples:
        raise UsageError(f"{len(samples) / processor.rate:.0f} seconds; attention is drawn over {processor.seconds}")
    (found,) = transcribe(model, tokenizer, processor, [samples], TranscriptionSettings(beam=beam, times=False))
    special = SpeechTokens.of(model, tokenizer)
    ids = [
        i
        for segment in found.segments
        for i in (segment.tokens if special is None else special.text_ids(segment.tokens))
    ]
    if not ids:
        raise UsageError("the model hears no speech in this sound, so there is no token to look at")
    prompt = [model.config.start_token] if special is None else special.prompt(times=False)
    declared = settings_of(model).declared.get("alignment_heads")
    names = [name for name in named_taps(model) if name.endswith("cross_attention.pattern")]
    seen: dict[str, Tensor] = {}

    def record(name: str, pattern: Tensor) -> None:
        seen[name] = pattern.float().cpu()

    weight = next(model.parameters())
    frames_MF = processor.encode(samples)
    target_BT = torch.tensor([[*prompt, *ids[:-1]]], device=weight.device)
    with evaluating(model), listening(model, names, record):
        model(torch.from_numpy(frames_MF)[None].to(weight.device, weight.dtype), target_BT)
    patterns_LHTS = torch.stack([seen[name].reshape(-1, *seen[name].shape[-2:]) for name in names])
    L, H = patterns_LHTS.shape[:2]
    heads = [(int(a), int(b)) for a, b in declared] if declared else [(a, b) for a in range(L) for b in range(H)]
    mean_TS = torch.stack([patterns_LHTS[a, b] for a, b in heads]).mean(dim=0)[len(prompt) - 1 :]
    n = -(-len(samples) // (2 * processor.hop))  # vectors that the sound fills
    step = 2 * processor.hop / processor.rate
    return SpeechAttention(
        [tokenizer.token_text(i) for i in ids], mean_TS[:, :n].numpy(), frames_MF[:, : 2 * n], heads, step
    )
