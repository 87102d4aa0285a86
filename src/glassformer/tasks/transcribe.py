"""Transcribe: a sound has been read; token by token, how surprising is what was said in it?

sound        log-mel frames ──► encoder
target in    <start> h e l l o          what the decoder reads; a Whisper's begins with its own prompt
target out   h e l l o <end>            what it should predict at each position

Radford et al. 2022 (Whisper), https://arxiv.org/abs/2212.04356, sect. 2.2 and 2.4.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.examples import spread
from glassformer.data.recordings import Recording, load_recordings
from glassformer.errors import DataError
from glassformer.evaluation.speech import SpeechErrors, plain_words, speech_errors
from glassformer.generation.seq2seq import Answer
from glassformer.generation.speech_tokens import SpeechTokens
from glassformer.generation.transcribe import TranscriptionSettings, transcribe
from glassformer.hub.configuration import read_config
from glassformer.hub.generation_config import read_generation_settings
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.tokenizers import load_tokenizer
from glassformer.processors.tokenizers.special_tokens import SENTENCE_SPECIALS
from glassformer.tasks.base import Batch, Batches, Opening
from glassformer.tasks.examples import shortened
from glassformer.tasks.losses import IGNORED, padded
from glassformer.tasks.settings import Choice, DataSettings
from glassformer.tasks.sources import ExampleSource
from glassformer.tasks.translate import Scored, Translate, TranslateSettings

LONGEST = 30  # seconds of a window, as Whisper's


class TranscribeSettings(TranslateSettings):
    """[task] of `transcribe`."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """the share of each target that is spread over the vocabulary"""
    seconds: int | None = Field(default=None, ge=1, le=600)
    """of sound that a fresh model reads; longer ones are left out; None: the longest, at most 30"""
    n_mels: int = Field(default=80, ge=1, le=512)
    """mel bands that a fresh model reads"""
    plain: bool = False
    """transcripts in small letters without punctuation"""
    freeze_encoder: bool = False
    """only the decoder is trained, in a fraction of the time"""
    spec_augment: bool = False
    """bands and stretches of time of training sounds are hidden at random"""


@dataclass(kw_only=True)
class SpeechSource(ExampleSource):
    """Sounds by split, their tokenizer, and (as `source_tokenizer`) what makes frames of them. prompt: ids that the
    decoder reads first. before: what every text begins with, a space for a Whisper."""

    source_tokenizer: Any
    prompt: list[int]
    before: str = ""

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation sound, its text, or how both are read does."""
        begin = repr((self.source_tokenizer, self.tokenizer.hash))
        return self.digest(lambda clip: (clip.key, clip.text), begin=begin)

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that the sounds decide."""
        p = self.source_tokenizer
        return {**super().fields(), "n_mels": p.n_mels, "source_block_size": p.n_frames // 2}


class Transcribe(Translate):
    """Cross-entropy of a transcript given its sound, in nats a token.

    A batch is (frames (B, mels, F) fp32, target_in_BT, target_out_BT). Sounds are filled up with silence, which the
    model reads as Whisper does.
    """

    Settings: ClassVar = TranscribeSettings
    reads: ClassVar[str] = "frames"
    defaults: ClassVar[Mapping[str, Any]] = {"block_size": 448}
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "transcribe"
    default_kind: ClassVar[tuple[str, str]] = ("characters", "of the transcripts")
    source: SpeechSource

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> SpeechSource:  # type: ignore[override]
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        clips = load_recordings(data.source)
        if data.max_examples:
            clips = {**clips, "train": spread(clips["train"], data.max_examples)}
        if asked.plain:
            clips = {
                split: [clip._replace(text=plain_words(clip.text)) for clip in rows] for split, rows in clips.items()
            }
        cls.check_no_source(opening.tokenizer, "sound")
        if opening.folder is not None:
            return cls._of_folder(opening.folder, data.source, clips)
        tokenizer = cls.writer([clip.text for clip in clips["train"]], opening.tokenizer, choices)
        processor = AudioProcessor(n_mels=asked.n_mels)
        if (seconds := asked.seconds) is None:
            longest = max(len(processor.samples(clip.sound)) for rows in clips.values() for clip in rows)
            seconds = min(LONGEST, math.ceil(longest / processor.rate))
            choices.append(Choice("task.seconds", seconds, f"of the longest sound, at most {LONGEST}"))
        start = tokenizer.special_tokens.get(SENTENCE_SPECIALS[1])
        return SpeechSource(
            name=data.source,
            examples=clips,
            tokenizer=tokenizer,
            source_tokenizer=replace(processor, seconds=seconds),
            prompt=[] if start is None else [start],
        )

    @classmethod
    def _of_folder(cls, folder: Path, name: str, clips: Mapping[str, list[Recording]]) -> SpeechSource:
        """With the processors of a model, a Whisper or one of our own."""
        tokenizer, (_, config) = load_tokenizer(folder), read_config(folder)
        settings = read_generation_settings(folder, {})
        tokens = SpeechTokens.known(tokenizer, many=bool(settings.declared.get("is_multilingual")))
        special = {field: getattr(config, field) for field in ("start_token", "end_token", "pad_token")}
        prompt = [special["start_token"]] if tokens is None else tokens.prompt(times=False)
        if tokens is not None:
            special["end_token"] = tokens.end
        return SpeechSource(
            name=name,
            examples=clips,
            tokenizer=tokenizer,
            source_tokenizer=AudioProcessor.load(folder),
            prompt=prompt,
            before="" if tokens is None else " ",
            special=special,
        )

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        raise DataError(f"{data.source} holds sound and no text")

    @property
    def longest(self) -> int:
        """Tokens of a transcript, which 19 of 20 of the first training examples do not exceed."""
        texts = [clip.text for clip in self.source.examples["train"][:1000]]
        return int(np.quantile([len(ids) for ids in self.tokenizer.encode_documents(texts)], 0.95))

    def begin(self, model: Any) -> None:
        if self.settings.freeze_encoder:
            model.encoder.requires_grad_(False)

    def encode(self, split: str, T: int) -> list[Any]:
        """(target ids, number of the sound, its samples), in this order so that batches are sorted by text. Sounds and
        texts that are longer than the model's windows are left out."""
        clips, processor = self.source.examples[split], self.source.source_tokenizer
        targets = self.tokenizer.encode_documents([self.source.before + clip.text for clip in clips])
        rows = [(ids, processor.samples(clip.sound)) for ids, clip in zip(targets, clips, strict=True)]
        most = T - len(self.source.prompt)
        fitting = [row for row in rows if len(row[0]) <= most and len(row[1]) <= processor.n_samples]
        what = f"longer than {most} tokens or {processor.seconds} seconds left out"
        self.source.notice(len(rows) - len(fitting), "sound", split, what)
        if not fitting:
            raise DataError(f"every sound is {what.removesuffix(' left out')}; set a larger task.seconds")
        return fitting

    def collate(self, examples: Sequence[Any], random: np.random.Generator | None = None) -> Batch:
        """(target ids, samples) -> a batch."""
        p, prompt = self.source.source_tokenizer, self.source.prompt
        frames_BMF = np.stack([p.log_mel(samples, p.n_frames) for _, samples in examples])
        target_in_BT, _ = padded([[*prompt, *ids] for ids, _ in examples], self.pad_token)
        ignored = [IGNORED] * (len(prompt) - 1)
        target_out_BT, _ = padded([[*ignored, *ids, self.end_token] for ids, _ in examples], IGNORED)
        return torch.from_numpy(frames_BMF), target_in_BT, target_out_BT

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """As of any task on examples; training sounds lose bands and stretches if the settings say so."""
        batches: Any = super().batches(split, rank, world_size)
        if split == "train" and self.settings.spec_augment:
            batches.collate, batches.by_chance = self.collate_augmented, True
        return batches  # type: ignore[no-any-return]

    def collate_augmented(self, examples: Sequence[Any], random: np.random.Generator) -> Batch:
        """As `collate`, parts of each sound hidden."""
        frames_BMF, *targets = self.collate(examples)
        for frames_MF, (_, samples) in zip(frames_BMF, examples, strict=True):
            hide_parts(frames_MF, len(samples) // self.source.source_tokenizer.hop, random)
        return frames_BMF, *targets

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, None]:
        return batch[0], batch[1], None

    # ---- what it writes ----

    def transcripts(self, model: Any, clips: Sequence[Recording], beam: int = 1) -> list[str]:
        """What the model writes for some sounds, without time stamps and second tries."""
        p = self.source.source_tokenizer
        settings = TranscriptionSettings(beam=beam, times=False)
        if SpeechTokens.of(model, self.tokenizer) is not None:
            settings = replace(settings, temperatures=(0.0,))
        found = []
        for start in range(0, len(clips), settings.batch_size):
            sounds = [p.samples(clip.sound) for clip in clips[start : start + settings.batch_size]]
            found += [each.text for each in transcribe(model, self.tokenizer, p, sounds, settings)]
        return found

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """What the model writes (the most probable token each time), and the target."""
        ids, samples = example
        (answer,) = self.transcripts(model, [Recording(samples, "", "")])
        return f"model:  {shortened(answer)}\ntarget: {shortened(self.tokenizer.decode(ids.tolist()))}"

    def score_answers(self, model: Any, *, split: str = "test", beam: int = 4, limit: int | None = None) -> Scored:
        """The share of words and characters that are wrong in transcripts of a split (`plain_words` on both sides).

        Raises: as `Translate.score_answers`.
        """
        clips: list[Recording] = self.answerable(split, limit, lambda clip: clip.text)
        speech_errors([""], ["a"])  # a missing package is reported before the long work
        p = self.source.source_tokenizer
        if SpeechTokens.of(model, self.tokenizer) is None:
            clips = [clip for clip in clips if len(p.samples(clip.sound)) <= p.n_samples]
        texts, references = self.transcripts(model, clips, beam), [clip.text for clip in clips]
        scores: SpeechErrors = speech_errors(texts, references)
        answers = [Answer((), 0.0, 0.0, text) for text in texts]
        return Scored(scores, [clip.key for clip in clips], answers, [[text] for text in references])


def hide_parts(frames_MF: Tensor, n_frames: int, random: np.random.Generator) -> None:
    """Hide two stretches of bands (up to a sixth each) and two of time (up to a tenth of the sound's `n_frames` each)
    behind the mean: SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779, sect. 2). In place."""
    mean, mels = float(frames_MF[:, : max(1, n_frames)].mean()), len(frames_MF)
    for _ in range(2):
        width = int(random.integers(0, mels // 6 + 1))
        start = int(random.integers(0, mels - width + 1))
        frames_MF[start : start + width] = mean
        width = int(random.integers(0, n_frames // 10 + 1))
        start = int(random.integers(0, n_frames - width + 1))
        frames_MF[:, start : start + width] = mean
