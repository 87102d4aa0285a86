"""Text to characters, and speech to levels and back: what a text-to-speech model reads and writes.

    "Who are you?" ──► characters, after the voice:        5 24 10 17 1 3 ...
    sound ──► log-mel frames ──► levels ──► steps:         (steps, frames of a step, bands), 0 ... levels - 1

    processor = SpeechProcessor.fit(frames, texts, voices=("en-us",))
    ids = processor.encode("Who are you?", "en-us")
    sound = processor.decode(levels)                       # samples, by Griffin and Lim

Each band of each frame is one of a few levels, equally spaced between two values of the band, as in dMel (Bai et al.
2024, https://arxiv.org/abs/2407.15835, sect. 2.1, where all bands share the two); several frames are one step of the
decoder (Wang et al. 2017, https://arxiv.org/abs/1703.10135, sect. 3.3).
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import ModelFolderError, UsageError, did_you_mean, one_line
from glassformer.files import write_json
from glassformer.processors.audio import AudioProcessor
from glassformer.text_files import read_json

FILE = "preprocessor_config.json"
TYPE = "SpeechProcessor"
MAX_JSON_BYTES = 1 << 20
MAX_CHARACTERS = 4096  # of an alphabet
LOUDEST_SHARE = 0.9995  # of the values of a band that are within its highest level
TYPED = str.maketrans({"\u2019": "'", "\u2018": "'", "\u201c": '"', "\u201d": '"', "\u2013": "-", "\u2014": "-"})


@dataclass(frozen=True)
class SpeechProcessor:
    """Characters and levels of one model.

    Attributes:
        alphabet: the characters that it knows. voices: names; each is a token before the text.
        rate: samples a second (Hz). window, hop: samples of a frame, and from a frame to the next one.
        n_levels: of each band. frames_per_step: that are written together.
        low, high: of each band, the log-mel value (`AudioProcessor.log_mel`) of the lowest and of the highest level.

    Raises:
        UsageError: a value is impossible.
    """

    alphabet: str
    voices: tuple[str, ...]
    rate: int
    window: int
    hop: int
    n_levels: int
    frames_per_step: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def __post_init__(self) -> None:
        for name, low, high in (("n_levels", 2, 256), ("frames_per_step", 1, 64)):
            if type(value := getattr(self, name)) is not int or not low <= value <= high:
                raise UsageError(f"{name}={value}: give a whole number from {low} to {high}")
        if not 0 < len(self.alphabet) <= MAX_CHARACTERS or len(set(self.alphabet)) < len(self.alphabet):
            raise UsageError(f"alphabet: give 1 to {MAX_CHARACTERS:,} different characters")
        if not self.voices or len(set(self.voices)) < len(self.voices) or not all(map(str.strip, self.voices)):
            raise UsageError("voices: give one name or more, all different")
        if len(self.low) != len(self.high) or not all(
            -99 < a < b < 99 for a, b in zip(self.low, self.high, strict=True)
        ):
            raise UsageError("low, high: give two numbers for each band, the first below the second")
        _ = self.audio

    @classmethod
    def fit(
        cls, frames: Iterable[np.ndarray], texts: Iterable[str], *, voices: Sequence[str], decades: float, **sizes: int
    ) -> SpeechProcessor:
        """For some frames (mels, F) and texts. decades: powers of ten between the lowest and the highest level of a
        band, which all but a few of its values stay below."""
        high_M = np.quantile(np.concatenate([*frames], axis=1).astype(np.float32), LOUDEST_SHARE, axis=1)
        alphabet = "".join(sorted({char for text in texts for char in plain(text)}))
        low, high = ((high_M - down).round(4).tolist() for down in (decades / 4, 0))
        return cls(alphabet=alphabet, voices=tuple(voices), low=tuple(low), high=tuple(high), **sizes)

    @property
    def n_mels(self) -> int:
        """Bands."""
        return len(self.low)

    @property
    def decades(self) -> float:
        """Powers of ten from the lowest level to the highest."""
        return round(4 * (self.high[0] - self.low[0]), 2)

    @property
    def audio(self) -> AudioProcessor:
        """What makes frames of sounds."""
        return AudioProcessor(n_mels=self.n_mels, rate=self.rate, window=self.window, hop=self.hop)

    @property
    def n_ids(self) -> int:
        """Nothing (padding), characters and voices."""
        return 1 + len(self.alphabet) + len(self.voices)

    @property
    def row_names(self) -> list[str]:
        """What each id stands for."""
        return ["(padding)", *self.alphabet, *(f"<{voice}>" for voice in self.voices)]

    @property
    def seconds_per_step(self) -> float:
        return self.frames_per_step * self.hop / self.rate

    def encode(self, text: str, voice: str | None = None) -> np.ndarray:
        """The voice and the characters of a text: ids (1 + characters,) int64. voice: None takes the first one.

        Raises:
            UsageError: there is no such voice, no text, or a character that is not in the alphabet.
        """
        voice = self.voices[0] if voice is None else voice
        if voice not in self.voices:
            raise UsageError(f"there is no voice {voice!r}; {did_you_mean(voice, self.voices)}")
        text = plain(text)
        if not text:
            raise UsageError("there is no text to say; give a sentence in quotes")
        numbers = {char: number for number, char in enumerate(self.alphabet, 1)}
        if unknown := self.unknown(text):
            shown = one_line(" ".join(map(repr, unknown)), most=60)
            raise UsageError(
                f"the model has not learned {shown}; it knows {one_line(self.alphabet.strip(), most=80)}: "
                "spell numbers and signs out as words"
            )
        return np.array([1 + len(self.alphabet) + self.voices.index(voice), *(numbers[c] for c in text)])

    def unknown(self, text: str) -> list[str]:
        """The characters of a text that are not in the alphabet, each once."""
        return list(dict.fromkeys(char for char in plain(text) if char not in self.alphabet))

    def levels(self, frames_MF: np.ndarray) -> np.ndarray:
        """The levels of log-mel frames, in whole steps: (steps, frames_per_step, mels) uint8. The last step is filled
        up with silence."""
        low_M, range_M = self._range()
        share_FM = (frames_MF.T.astype(np.float32) - low_M) / range_M
        levels_FM = np.rint(share_FM.clip(0, 1) * (self.n_levels - 1)).astype(np.uint8)
        missing = -len(levels_FM) % self.frames_per_step
        return np.pad(levels_FM, ((0, missing), (0, 0))).reshape(-1, self.frames_per_step, self.n_mels)

    def frames(self, levels_TFM: np.ndarray) -> np.ndarray:
        """The log-mel frames of levels (steps, frames_per_step, mels), whole ones or what lies between: (mels, F)."""
        levels_FM = np.asarray(levels_TFM, dtype=np.float32).reshape(-1, self.n_mels)
        low_M, range_M = self._range()
        return np.ascontiguousarray((low_M + levels_FM / (self.n_levels - 1) * range_M).T)

    def _range(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest value of each band, and from there to the highest."""
        low_M = np.array(self.low, dtype=np.float32)
        return low_M, np.array(self.high, dtype=np.float32) - low_M

    def decode(self, levels_TFM: np.ndarray) -> np.ndarray:
        """Samples (N,) at `rate` that sound like some levels: `AudioProcessor.decode`."""
        return self.audio.decode(self.frames(levels_TFM))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        write_json(Path(folder) / FILE, {"processor_type": TYPE, **dataclasses.asdict(self)})


def load_speech_processor(folder: str | os.PathLike[str]) -> SpeechProcessor:
    """The processor of a model folder.

    Raises:
        ModelFolderError: it is missing or damaged.
    """
    file = Path(folder) / FILE
    given = read_json(file, ModelFolderError, most=MAX_JSON_BYTES)
    if given.pop("processor_type", None) != TYPE:
        raise ModelFolderError(f"{file}: no {TYPE}; copy the folder again, whole")
    try:
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
        if not isinstance(fields.get("alphabet"), str) or {type(v) for v in fields.get("voices", ())} != {str}:
            raise TypeError("alphabet or voices are missing")
        return SpeechProcessor(**fields)
    except (TypeError, ValueError, AttributeError, UsageError) as error:
        raise ModelFolderError(f"{file}: {one_line(error, most=200)}; copy the folder again, whole") from None


def plain(text: str) -> str:
    """A text as the model reads it: small letters, typed quotes and dashes, single spaces.

    >>> plain("Who  are YOU?")
    'who are you?'
    """
    return " ".join(text.translate(TYPED).lower().split())
