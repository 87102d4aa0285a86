"""Spoken digits beside Whisper: the same sounds of voices that the run has not heard, one normaliser for both.

    python benchmarks/spoken_digits.py RUN [--sounds 100]

Prints JSON. `sounds` are spread evenly over the test split of `spoken-digits`, so over all of its voices. `run` has the
word error rate of the run, `whisper` that of Whisper tiny.en as pulled (8-bit matrices), both greedy and without time
stamps, with 95 % intervals. Whisper writes digits as figures ("3-9"), which count as words here ("three nine").
"""

from __future__ import annotations

import argparse
import json
import re
import time
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np

import glassformer as gf
from glassformer.data.example_splits import spread
from glassformer.data.recordings import load_recordings
from glassformer.data.spoken_digits import DIGITS
from glassformer.evaluation.speech import plain_words, speech_errors
from glassformer.generation import TranscriptionSettings, transcribe
from glassformer.threads import set_threads

MODEL = "whisper-tiny-en"


def digit_words(text: str) -> str:
    """Plain words, each figure as its own word.

    >>> digit_words("3-9, oh Seven!")
    'three nine oh seven'
    """
    return plain_words(re.sub(r"\d", lambda found: f" {DIGITS[int(found[0])]} ", text))


def scored(path: str, dtype: str, clips: list[Any]) -> dict[str, Any]:
    """The error rates of a model, and seconds a sound."""
    bundle, settings, texts = gf.load(path, dtype=dtype), TranscriptionSettings(beam=1, times=False), list[str]()
    began = time.perf_counter()
    for start in range(0, len(clips), 8):
        sounds: list[np.ndarray] = [clip.sound for clip in clips[start : start + 8]]
        parts = bundle.model, bundle.tokenizer, bundle.source_processor
        texts += [each.text for each in transcribe(*parts, sounds, settings)]
    seconds = (time.perf_counter() - began) / len(clips)
    errors = speech_errors(texts, [clip.text for clip in clips], digit_words)
    return {**errors.to_dict(), "seconds_a_sound": round(seconds, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", help="a run of the recipe spoken-digits")
    parser.add_argument("--sounds", type=int, default=100, help="of the test split")
    given = parser.parse_args()
    set_threads()
    clips = spread(load_recordings("spoken-digits")["test"], given.sounds)
    found = {"run": scored(given.run, "fp32", clips), "whisper": scored(MODEL, "int8", clips)}
    print(json.dumps({"sounds": len(clips), **found}, indent=2))


if __name__ == "__main__":
    main()
