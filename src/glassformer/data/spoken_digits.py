"""Digits spoken by voices of espeak-ng: "seven", "three zero nine one", with other voices in the test split.

    twelve voices, each at two rates and pitches     training and validation, other digits in each
    four voices that are in neither                  test

What is synthesised once lies in the cache, at 16 kHz. It needs the extra `speech`.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from glassformer.files import atomic_file, cache_folder

if TYPE_CHECKING:
    import numpy as np

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
VOICES = (
    *("en-us", "en-us+f1", "en-us+m2", "en-us+m6", "en-us-nyc+m4", "en+f2", "en+m3", "en+m7"),
    *("en-gb-x-rp", "en-gb-scotland", "en-gb-scotland+f4", "en-029+m8"),
)
TEST_VOICES = ("en-us+f3", "en+m1", "en-gb-scotland+m5", "en-gb-x-rp+f5")
"""Their variants (f3, m1, ...) are in no training sound; their accents are."""
MANNERS = ((130, 40), (160, 60), (190, 35), (175, 50))
"""Words a minute and pitch (espeak-ng's 0 to 99); each voice has two of them."""
COUNTS = {"train": 80, "validation": 8, "test": 50}
"""Sounds of each voice and manner."""
SINGLE = 0.2
"""Share of sounds with one digit; the others have two to six."""
LONGEST = 6
RATE = 16_000
"""Samples a second."""
VERSION = 1  # of what is synthesised: a change makes new files in the cache


class Speaker(NamedTuple):
    """A voice and how it speaks."""

    voice: str
    words_a_minute: int
    pitch: int


class SpokenDigits(NamedTuple):
    """A sound, samples (N,) int16 at `RATE`, its words, and what names it."""

    samples_N: np.ndarray
    text: str
    key: str


def speakers(split: str) -> list[Speaker]:
    """Each voice of a split, in both of its manners."""
    voices = TEST_VOICES if split == "test" else VOICES
    return [
        Speaker(voice, *MANNERS[(number + i) % len(MANNERS)]) for number, voice in enumerate(voices) for i in range(2)
    ]


def texts_of(split: str, number: int, count: int | None = None) -> list[str]:
    """The digits that speaker `number` of a split says, the same each time."""
    import numpy as np

    random = np.random.default_rng((7, list(COUNTS).index(split), number))
    found = []
    for _ in range(COUNTS[split] if count is None else count):
        n = 1 if random.random() < SINGLE else int(random.integers(2, LONGEST + 1))
        found.append(" ".join(DIGITS[i] for i in random.integers(10, size=n)))
    return found


def load_spoken_digits(counts: dict[str, int] | None = None) -> dict[str, list[SpokenDigits]]:
    """All sounds by split, out of the cache where they were spoken before.

    Args:
        counts: of each voice and manner; None: `COUNTS`.

    Raises:
        MissingExtraError: without espeakng-loader.
    """
    from glassformer.data.espeak import version
    from glassformer.progress import Progress

    asked, made_with = {**COUNTS, **(counts or {})}, (VERSION, version())
    parts = [
        (split, speaker, texts_of(split, n, asked[split]))
        for split in COUNTS
        for n, speaker in enumerate(speakers(split))
    ]
    found: dict[str, list[SpokenDigits]] = {split: [] for split in COUNTS}
    with Progress("espeak-ng speaks, once", sum(len(texts) for _, _, texts in parts), unit="sounds") as bar:
        for split, speaker, texts in parts:
            name = hashlib.sha256(repr((made_with, speaker, texts)).encode()).hexdigest()[:24]
            file = cache_folder() / "spoken-digits" / f"{name}.npz"
            if (sounds := _read(file, len(texts))) is None:
                sounds = _speak(texts, speaker)
                _write(file, sounds)
            keys = (f"{speaker.voice} {speaker.words_a_minute} {speaker.pitch} {name} {i}" for i in range(len(texts)))
            found[split] += map(SpokenDigits, sounds, texts, keys)
            bar.advance(len(texts))
    return found


def _speak(texts: list[str], speaker: Speaker) -> list[np.ndarray]:
    import numpy as np
    from scipy.signal import resample_poly

    from glassformer.data.espeak import RATE as THEIRS
    from glassformer.data.espeak import synthesize

    sounds = []
    for samples_N, _ in synthesize(texts, speaker.voice, speaker.words_a_minute, speaker.pitch):
        at_rate = resample_poly(samples_N.astype(np.float32), RATE, THEIRS)
        sounds.append(np.clip(np.rint(at_rate), -32768, 32767).astype(np.int16))
    return sounds


def _write(file: Path, sounds: list[np.ndarray]) -> None:
    import numpy as np

    with atomic_file(file) as temporary, open(temporary, "wb") as out:
        np.savez(out, samples=np.concatenate(sounds), lengths=np.array([len(sound) for sound in sounds]))


def _read(file: Path, n: int) -> list[np.ndarray] | None:
    """What `_write` wrote; None where there is nothing, or something damaged, which is then made again."""
    import zipfile

    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as parts:
            sounds = np.split(parts["samples"], np.cumsum(parts["lengths"])[:-1])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return sounds if len(sounds) == n else None
