"""Text to speech: a decoder writes the speech of a sentence, a few frames at a step, as levels of its bands.

characters    <en-us>  w  h  o     a  r  e     y  o  u  ?
steps         [50 frames a second, 64 bands of 16 levels, 3 frames a step] ...        asked for, given all before
end           0  0  0  0  0  0  0  0  0  0  0  1

Frames as levels: dMel (Bai et al. 2024, https://arxiv.org/abs/2407.15835). Several frames a step, and an end that is
decided: Tacotron (Wang et al. 2017, https://arxiv.org/abs/1703.10135) and its successor. That attention follows the
text is learned faster when it is guided (Tachibana et al. 2018, https://arxiv.org/abs/1710.08969, sect. 4.1, who take
the diagonal for a guide; here the synthesiser says when it says each word).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, Field
from torch import Tensor

from glassformer.data.example_splits import spread
from glassformer.data.speech import Utterance, load_sentences, load_speech
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Figure
from glassformer.generation.say import say_ids
from glassformer.processors.audio import AudioProcessor
from glassformer.processors.speech import SpeechProcessor, load_speech_processor
from glassformer.taps import listening
from glassformer.tasks.base import Batch, Loss, Opening
from glassformer.tasks.examples import NonTextTask
from glassformer.tasks.losses import IGNORED, number_of, row_losses
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource
from glassformer.tasks.speech_figures import said_figures

FITTED_ON = 300  # utterances that decide the range of levels
MORE_ROOM = 1.5  # times the longest sentence of the data, for the longest one to be said
SIGHT = (
    2.5  # characters around the one that is being said, where attention is guided to: the deviation of a normal curve
)
CROSS = "blocks.*.cross_attention.pattern"


def _listed(given: Any) -> Any:
    """`task.voices=en-us,en-gb` on the command line is a list too."""
    return tuple(text.strip() for text in given.split(",")) if isinstance(given, str) else given


class TextToSpeechSettings(TaskSettings):
    """[task] of `text_to_speech`."""

    voices: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(
        default=("en-us",), min_length=1, max_length=100
    )
    """of espeak-ng, such as en-us or en-us+f3; each sentence is spoken by one of them, in turn"""
    words_a_minute: int = Field(default=175, ge=80, le=450)
    """that they speak"""
    n_mels: int = Field(default=64, ge=8, le=128)
    """bands of a frame"""
    n_levels: int = Field(default=16, ge=2, le=256)
    """of a band"""
    decades: float = Field(default=5.0, gt=0, le=10)
    """powers of ten between the lowest and the highest level"""
    frames_per_step: int = Field(default=3, ge=1, le=16)
    """frames of 20 ms that are written together"""
    guide: float = Field(default=0.5, ge=0, le=100)
    """weight of the alignment: how far attention may look from the word that is being said; 0: as it likes"""
    end_weight: float = Field(default=0.1, gt=0, le=100)
    """weight of the decision whether speech ends, which is one a step"""


@dataclass(kw_only=True)
class SpeechSource(SplitSource):
    """Utterances by split, and what makes arrays of them."""

    processor: SpeechProcessor
    tokenizer: None = None
    source_tokenizer: None = None

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation utterance, or how it is read, does."""
        return self.digest(lambda u: (u.text, u.voice, str(u.frames_MF.shape[1])), begin=repr(self.processor))


class TextToSpeech(NonTextTask):
    """Cross-entropy of every level, in nats, given the text and the steps before; beside it the end and the alignment.

    A batch is (ids_BS, lengths_B, centres_BT, targets_BTN): characters, the place in the text that each step says, and
    levels, -100 behind the end of a sentence.
    """

    holds: ClassVar[str] = "speech"
    Settings = TextToSpeechSettings
    reads: ClassVar[str] = "characters"
    asks: ClassVar[str] = "speech"
    head: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {"n_encoder_layer": 3}
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "say"
    source: SpeechSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> SpeechSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("characters and levels are the tokens; leave out the keys of [tokenizer]")
        sentences = load_sentences(data.source)
        if data.max_examples:
            sentences = {**sentences, "train": sentences["train"][: data.max_examples]}
        known = None if opening.folder is None else load_speech_processor(opening.folder)
        if known is not None:
            check_same(known, asked, opening.settings)
        audio = AudioProcessor(n_mels=asked.n_mels, **SOUND) if known is None else known.audio
        voices = asked.voices if known is None else known.voices
        speech = load_speech(sentences, voices, asked.words_a_minute, audio)
        processor = known or cls._processor(speech, asked)
        unknown = {c for rows in speech.values() for u in rows for c in processor.unknown(u.text)}
        if unknown:
            shown = " ".join(map(repr, sorted(unknown)[:8]))
            raise DataError(
                f"{data.source}: characters that the model does not know: {shown}; leave their sentences out"
            )
        return SpeechSource(name=data.source, examples=speech, processor=processor)

    @staticmethod
    def _processor(speech: Mapping[str, Sequence[Utterance]], asked: TextToSpeechSettings) -> SpeechProcessor:
        return SpeechProcessor.fit(
            [u.frames_MF for u in spread(speech["train"], FITTED_ON)],
            [u.text for rows in speech.values() for u in rows],
            voices=asked.voices,
            decades=asked.decades,
            n_levels=asked.n_levels,
            frames_per_step=asked.frames_per_step,
            **SOUND,
        )

    @property
    def n_answers(self) -> int:
        return self.processor.n_levels

    def model_fields(self) -> dict[str, Any]:
        p = self.processor
        every = [u for rows in self.source.examples.values() for u in rows]
        steps = [-(-u.frames_MF.shape[1] // p.frames_per_step) for u in every]
        characters = [len(u.text) + 1 for u in every]
        return {
            "vocab_size": p.n_ids,
            "n_bands": p.n_mels,
            "n_levels": p.n_levels,
            "frames_per_step": p.frames_per_step,
            "block_size": int(MORE_ROOM * max(steps)) + 1,
            "text_block_size": int(MORE_ROOM * max(characters)) + 1,
            "steps_per_character": float(f"{sum(steps) / sum(characters):.4g}"),
        }

    def facts(self) -> dict[str, Any]:
        p = self.processor
        hours = {
            split: round(sum(u.frames_MF.shape[1] for u in rows) * p.hop / p.rate / 3600, 3)
            for split, rows in self.source.examples.items()
        }
        return {**super().facts(), "hours": hours}

    # ---- batches ----

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids, levels, centres) of each utterance."""
        p, found = self.processor, []
        for u in self.source.examples[split]:
            ids, levels_TFM = p.encode(u.text, u.voice), p.levels(u.frames_MF)
            if len(levels_TFM) > T:
                raise DataError(f"{u.text[:40]!r} takes {len(levels_TFM)} steps, and the model says {T}; leave it out")
            found.append((ids, levels_TFM.reshape(len(levels_TFM), -1), self._centres(u, len(levels_TFM))))
        return found

    def _centres(self, u: Utterance, n_steps: int) -> np.ndarray:
        """Where in the ids each step is, (T,) fp32: between the beginnings of words at an even pace."""
        p = self.processor
        middles = (np.arange(n_steps) + 0.5) * p.frames_per_step * p.hop
        characters, samples = u.starts_W2[:, 0], u.starts_W2[:, 1]
        ends = [len(u.text)], [u.frames_MF.shape[1] * p.hop]
        places = np.interp(middles, np.append(samples, ends[1]), np.append(characters, ends[0]))
        return (1 + places).clip(max=len(u.text)).astype(np.float32)

    def collate(self, examples: Sequence[tuple[np.ndarray, ...]], random: Any = None) -> Batch:
        """(ids, levels, centres) -> a batch, shorter ones filled up behind."""
        S, T = (max(len(example[part]) for example in examples) for part in (0, 1))
        ids_BS = np.stack([np.pad(ids, (0, S - len(ids))) for ids, _, _ in examples])
        centres_BT = np.stack([np.pad(centres, (0, T - len(centres))) for _, _, centres in examples])
        targets_BTN = np.full((len(examples), T, examples[0][1].shape[1]), IGNORED, dtype=np.int64)
        for row, (_, levels_TN, _) in enumerate(examples):
            targets_BTN[row, : len(levels_TN)] = levels_TN
        lengths_B = torch.tensor([len(ids) for ids, _, _ in examples])
        return torch.from_numpy(ids_BS), lengths_B, torch.from_numpy(centres_BT), torch.from_numpy(targets_BTN)

    # ---- losses ----

    def loss(self, model: Any, batch: Batch) -> Loss:
        ids_BS, lengths_B, centres_BT, targets_BTN = batch
        patterns: list[Tensor] = []
        there_BT = targets_BTN[..., 0] != IGNORED
        if self.settings.guide:
            with listening(model, CROSS, lambda _, pattern: patterns.append(pattern)):
                logits_BTNL, end_BT = model(ids_BS, lengths_B, before(targets_BTN))
        else:
            logits_BTNL, end_BT = model(ids_BS, lengths_B, before(targets_BTN))
        levels = F.cross_entropy(logits_BTNL.flatten(0, 2).float(), targets_BTN.flatten(), reduction="sum")
        last_BT = there_BT & ~F.pad(there_BT[:, 1:], (0, 1))
        end = F.binary_cross_entropy_with_logits(end_BT.float()[there_BT], last_BT[there_BT].float(), reduction="sum")
        steps, N = number_of(torch.where(there_BT, 0, IGNORED)), targets_BTN.shape[2]
        total = levels + N * self.settings.end_weight * end
        metrics = {"level": (levels.detach(), number_of(targets_BTN)), "end": (end.detach(), steps)}
        if patterns:
            alignment = alignment_loss(torch.stack(patterns).mean(dim=(0, 2)), centres_BT)[there_BT].sum()
            total = total + N * self.settings.guide * alignment
            metrics["alignment"] = alignment.detach(), steps
        return Loss(total, number_of(targets_BTN), metrics)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The levels alone."""
        ids_BS, lengths_B, _, targets_BTN = batch
        logits_BTNL, _ = model(ids_BS, lengths_B, before(targets_BTN))
        return row_losses(logits_BTNL.flatten(1, 2), targets_BTN.flatten(1))

    # ---- samples ----

    def sample(self, model: Any, step: int) -> list[Figure]:
        """A held-out sentence as the model says it, beside its recording."""
        utterance = self.source.examples["validation"][0]
        p = self.processor
        said = say_ids(model, p, p.encode(utterance.text, utterance.voice))
        return said_figures(p, utterance.text, said, p.levels(utterance.frames_MF))


SOUND = {"rate": 22_050, "window": 1024, "hop": 441}
"""Of the frames: espeak-ng's own rate, and 50 frames a second."""


def check_same(known: SpeechProcessor, asked: TextToSpeechSettings, given: Mapping[str, Any]) -> None:
    """Raise `UsageError` where a setting is given that the model has another value of."""
    for name in ("voices", "n_mels", "n_levels", "frames_per_step", "decades"):
        has, wanted = getattr(known, name), getattr(asked, name)
        if name in given and has != wanted:
            raise UsageError(f"task.{name}={wanted} where the model that it starts from has {has}; leave it out")


def before(targets_BTN: Tensor) -> Tensor:
    """The step before each one; nothing is read before the first."""
    return F.pad(targets_BTN[:, :-1].clamp(min=0), (0, 0, 1, 0))


def alignment_loss(pattern_BTS: Tensor, centres_BT: Tensor) -> Tensor:
    """-log of the attention that each step pays around its place in the text, in nats; (B, T)."""
    places_S = torch.arange(pattern_BTS.shape[2], device=pattern_BTS.device)
    near_BTS = torch.exp(-0.5 * ((places_S - centres_BT[..., None]) / SIGHT) ** 2)
    return -(pattern_BTS.float() * near_BTS).sum(dim=-1).clamp_min(1e-6).log()
