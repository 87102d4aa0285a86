"""Sentences as speech by eSpeak NG, and when each word is said.

eSpeak NG (https://github.com/espeak-ng/espeak-ng, GPL-3.0-or-later) comes as a library with its voices in the wheel
`espeakng-loader`, the extra `speech`. Its noise depends on what was said before, so sentences are synthesised in
order, in a process of their own: the same list gives the same sound each time.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import DataError, MissingExtraError, UsageError, did_you_mean, one_line

RATE = 22_050  # samples a second that it makes
WORDS_A_MINUTE = (80, 450)  # that it takes
MAX_SENTENCE = 500  # characters
PITCH = 50  # of espeak-ng's 0 to 99
_RETRIEVAL, _UTF8, _WORDS_A_MINUTE, _PITCH, _WORD = 1, 1, 1, 3, 1  # of its own header, speak_lib.h
_OK = 0


class Spoken(NamedTuple):
    """A sentence as sound. samples_N: int16 at `RATE`. starts_W2: of each word, its first character and its first
    sample."""

    samples_N: np.ndarray
    starts_W2: np.ndarray


class _Event(ctypes.Structure):
    """espeak_EVENT."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_char * 8),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


def synthesize(sentences: Sequence[str], voice: str, words_a_minute: int, pitch: int = PITCH) -> Iterator[Spoken]:
    """Each sentence as speech, in order, from a process of their own.

    Args:
        voice: a file's name of espeak-ng's, such as en-us or en-gb-scotland, or with a variant: en-us+f3. The breath
            of some variants differs from one time to the next. pitch: 0 to 99.

    Raises:
        MissingExtraError: without espeakng-loader. UsageError: there is no such voice, or the speed is out of range.
        DataError: a sentence is too long, or the library failed.
    """
    check_voice(voice, words_a_minute)
    if not 0 <= pitch <= 99:
        raise UsageError(f"pitch={pitch} is out of range; use 0 to 99")
    for number, sentence in enumerate(sentences, 1):
        if not 0 < len(sentence) <= MAX_SENTENCE or "\n" in sentence or "\0" in sentence:
            raise DataError(f"sentence {number}: {len(sentence)} characters; give 1 to {MAX_SENTENCE} in one line each")
    command = [sys.executable, "-m", __name__, voice, str(words_a_minute), str(pitch)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None and process.stdout is not None and process.stderr is not None
            for sentence in sentences:
                process.stdin.write(sentence.encode() + b"\n")
                process.stdin.flush()
                header = np.frombuffer(process.stdout.read(16), dtype="<i8")
                if len(header) < 2:
                    lines = process.stderr.read().decode(errors="replace").split("\n")
                    reason = one_line(next(filter(None, reversed(lines)), "no reason given"), most=200)
                    raise DataError(f"espeak-ng failed at {sentence[:60]!r}: {reason}")
                n_samples, n_words = header.tolist()
                samples_N = np.frombuffer(process.stdout.read(2 * n_samples), dtype="<i2")
                starts_W2 = np.frombuffer(process.stdout.read(16 * n_words), dtype="<i8").reshape(-1, 2)
                yield Spoken(samples_N, starts_W2)
        finally:
            process.kill()


def check_voice(voice: str, words_a_minute: int) -> None:
    """Raise as `synthesize` for a voice or a speed that espeak-ng does not take."""
    from pathlib import Path

    low, high = WORDS_A_MINUTE
    if not low <= words_a_minute <= high:
        raise UsageError(f"words_a_minute={words_a_minute} is out of range; use {low} to {high}")
    data = Path(_loader().get_data_path())
    language, plus, variant = voice.partition("+")
    languages = sorted(file.name.lower() for file in (data / "lang").rglob("*") if file.is_file())
    variants = sorted(file.name for file in (data / "voices" / "!v").iterdir())
    if language.lower() not in languages:
        raise UsageError(f"espeak-ng has no voice {voice!r}; {did_you_mean(language, languages)}")
    if plus and variant not in variants:
        raise UsageError(f"espeak-ng has no variant {variant!r} of a voice; {did_you_mean(variant, variants)}")


def version() -> str:
    """The version of espeak-ng, which changes what is synthesised."""
    library = _library()
    library.espeak_Info.restype = ctypes.c_char_p
    return library.espeak_Info(None).decode(errors="replace")  # type: ignore[no-any-return]


def _loader() -> Any:
    try:
        import espeakng_loader
    except ImportError:
        raise MissingExtraError("synthesising speech", "speech") from None
    return espeakng_loader


def _library() -> Any:
    loader = _loader()
    try:
        library = ctypes.CDLL(loader.get_library_path())
    except OSError as error:
        raise DataError(
            f"espeak-ng cannot be loaded ({one_line(error, most=200)}); install espeakng-loader again"
        ) from None
    return library


class _Speaker:
    """The library, with one voice."""

    def __init__(self, voice: str, words_a_minute: int, pitch: int = PITCH):
        self.library, self.parts, self.starts = _library(), list[np.ndarray](), list[tuple[int, int]]()
        rate = self.library.espeak_Initialize(_RETRIEVAL, 0, _loader().get_data_path().encode(), 0)
        if rate != RATE:
            raise DataError(f"espeak-ng did not start (it answers {rate})")
        self.callback = _Callback(self._heard)
        self.library.espeak_SetSynthCallback(self.callback)
        if self.library.espeak_SetVoiceByName(voice.encode()) != _OK:
            raise DataError(f"espeak-ng does not load the voice {voice}")
        self.library.espeak_SetParameter(_WORDS_A_MINUTE, words_a_minute, 0)
        self.library.espeak_SetParameter(_PITCH, pitch, 0)

    def _heard(self, samples: Any, n: int, events: Any) -> int:
        if n > 0:
            self.parts.append(np.ctypeslib.as_array(samples, (n,)).copy())
        number = 0
        while events[number].type:
            if events[number].type == _WORD:
                self.starts.append((events[number].text_position - 1, events[number].sample))
            number += 1
        return 0

    def say(self, sentence: str) -> Spoken:
        self.parts.clear()
        self.starts.clear()
        text = sentence.encode()
        if self.library.espeak_Synth(text, len(text) + 1, 0, 0, 0, _UTF8, None, None) != _OK:
            raise DataError("espeak_Synth")
        self.library.espeak_Synchronize()
        samples_N = np.concatenate(self.parts) if self.parts else np.zeros(0, dtype=np.int16)
        return Spoken(samples_N, np.array(self.starts, dtype=np.int64).reshape(-1, 2))


def main() -> None:
    """Sentences from standard input, one a line -> sounds on standard output."""
    speaker = _Speaker(sys.argv[1], *map(int, sys.argv[2:]))
    for line in sys.stdin.buffer:
        samples_N, starts_W2 = speaker.say(line.decode().rstrip("\n"))
        header = np.array([len(samples_N), len(starts_W2)], dtype="<i8")
        parts = header, samples_N.astype("<i2"), starts_W2.astype("<i8")
        sys.stdout.buffer.write(b"".join(part.tobytes() for part in parts))
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
