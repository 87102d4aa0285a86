"""A text-to-speech model says a text: sentence by sentence, step by step, until it decides that the speech ends.

text ──► sentences ──► ids ──► encoder ──► memory
start ──► step 1 ──► step 2 ──► ... ──► end            levels, drawn band by band or the most likely ones
levels ──► log-mel frames ──► Griffin-Lim ──► samples

At temperature 0 the most likely levels are read on, and the sound is made of the mean that the model expects of each
level, which lies between the levels and is understood better (docs/beyond-text/say.md).
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glassformer.errors import DataError, MissingExtraError, UsageError
from glassformer.files import atomic_file
from glassformer.generation.eval_mode import evaluating
from glassformer.processors.speech import SpeechProcessor, plain
from glassformer.taps import listening

PACE = 2.5  # times the mean length of a text of so many characters, after which speech is cut
LEAST_STEPS = 20
PAUSE = 0.2  # seconds between sentences
MAX_TEXT = 20_000  # characters


@dataclass(frozen=True)
class Said:
    """A sentence as levels.

    levels_TFM: (steps, frames of a step, bands) uint8, as they were read on. sound_TFM: the same in fp32, of which the
    sound is made. pattern_TS: the mean attention of each step to the characters. ended: the model decided so; else it
    was cut.
    """

    levels_TFM: np.ndarray
    sound_TFM: np.ndarray
    pattern_TS: np.ndarray
    ended: bool


@dataclass(frozen=True)
class Speech:
    """A text as sound: samples (N,) fp32 at `rate`, and its sentences."""

    samples: np.ndarray
    rate: int
    sentences: list[str]
    said: list[Said]

    @property
    def seconds(self) -> float:
        return len(self.samples) / self.rate

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a sound file, 16 bits a sample (.wav, .flac, .ogg).

        Raises:
            MissingExtraError: without soundfile. UsageError: the ending is no format of sounds.
        """
        soundfile, kind = _writer(path)
        with atomic_file(path) as temporary:
            soundfile.write(str(temporary), self.samples, self.rate, format=kind)


def check_sound_path(path: str | os.PathLike[str]) -> None:
    """Raise as `Speech.save`, before anything is said."""
    _writer(path)


def _writer(path: str | os.PathLike[str]) -> tuple[Any, str]:
    try:
        import soundfile
    except ImportError:
        raise MissingExtraError("writing sound", "audio") from None
    kind = os.path.splitext(path)[1].removeprefix(".").upper()
    if kind not in ("WAV", "FLAC", "OGG"):
        raise UsageError(f"{path}: its ending is no format of sounds that is written; use .wav, .flac or .ogg")
    return soundfile, kind


def sentences_of(text: str) -> list[str]:
    """A text cut behind the marks that end sentences.

    >>> sentences_of("Who are you? I am here.")
    ['Who are you?', 'I am here.']
    """
    return [part for part in re.split(r"(?<=[.?!])\s+", " ".join(text.split())) if part]


def say(
    model: Any,
    processor: SpeechProcessor | None,
    text: str,
    *,
    voice: str | None = None,
    temperature: float = 0.0,
    seed: int = 0,
) -> Speech:
    """Say a text.

    Args:
        voice: one of the processor's; None: the first. temperature: 0 takes the most likely levels.

    Raises:
        UsageError: the model says nothing, has not learned a character or the voice, or a sentence is too long for it.
        DataError: the speech holds nothing.
    """
    if processor is None or "speech" not in model.answers:
        raise UsageError(f"a {type(model).__name__} says nothing; train one: glassformer train say")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise UsageError(f"temperature={temperature:g} is out of range; use 0 (the most likely levels) or more")
    if len(text) > MAX_TEXT:
        raise UsageError(f"{len(text):,} characters at once; give {MAX_TEXT:,} or fewer")
    sentences = sentences_of(text) or [""]
    encoded = [processor.encode(sentence, voice) for sentence in sentences]
    longest = model.config.text_block_size
    for sentence, ids in zip(sentences, encoded, strict=True):
        if len(ids) > longest:
            raise UsageError(
                f"{sentence[:40]!r}... has {len(plain(sentence))} characters, and the model says {longest - 1} at a "
                "time; end sentences sooner, with a full stop"
            )
    said, parts = [], list[np.ndarray]()
    pause = np.zeros(int(PAUSE * processor.rate), dtype=np.float32)
    for number, ids in enumerate(encoded):
        found = say_ids(model, processor, ids, temperature=temperature, seed=seed + number)
        said.append(found)
        parts += [pause] if parts else []
        parts.append(processor.decode(found.sound_TFM))
    samples = np.concatenate(parts)
    loudest = float(np.abs(samples).max())
    if not math.isfinite(loudest):
        raise DataError("the speech holds samples that are no finite numbers; use another checkpoint")
    return Speech(samples if loudest <= 1 else samples / loudest, processor.rate, sentences, said)


@torch.inference_mode()
def say_ids(
    model: Any, processor: SpeechProcessor, ids: np.ndarray, *, temperature: float = 0.0, seed: int = 0
) -> Said:
    """Say one encoded sentence."""
    config = model.config
    device = next(model.parameters()).device
    most = min(config.block_size, LEAST_STEPS + int(PACE * len(ids) * config.steps_per_character))
    N = config.frames_per_step * config.n_bands
    generator = torch.Generator().manual_seed(seed)
    levels, sound, rows = list[np.ndarray](), list[np.ndarray](), list[np.ndarray]()
    patterns: list[torch.Tensor] = []
    ended = False
    with evaluating(model), listening(model, "blocks.*.cross_attention.pattern", lambda _, p: patterns.append(p)):
        memory = model.encode(torch.from_numpy(ids)[None].to(device), torch.tensor([len(ids)], device=device))
        cache, before_1TN = model.new_cache(), torch.zeros(1, 1, N, dtype=torch.long, device=device)
        while len(levels) < most and not ended:
            patterns.clear()
            logits_BTNL, end_BT = model.decode(before_1TN, memory, cache=cache)
            logits_NL = logits_BTNL[0, -1].float().cpu()
            if temperature == 0:
                level_N = logits_NL.argmax(dim=-1)
                sound_N = logits_NL.softmax(dim=-1) @ torch.arange(config.n_levels, dtype=torch.float32)
            else:
                shares_NL = (logits_NL / temperature).softmax(dim=-1)
                level_N = torch.multinomial(shares_NL, 1, generator=generator)[:, 0]
                sound_N = level_N.float()
            levels.append(level_N.numpy().astype(np.uint8))
            sound.append(sound_N.numpy())
            rows.append(torch.stack(patterns).float().mean(dim=(0, 1, 2, 3)).cpu().numpy())
            before_1TN, ended = level_N[None, None].to(device), bool(end_BT[0, -1] > 0)
    shape = -1, config.frames_per_step, config.n_bands
    return Said(np.stack(levels).reshape(shape), np.stack(sound).reshape(shape), np.stack(rows), ended)
