"""How well a transcriber understands a text-to-speech model, beside what its levels can hold and the recordings.

    python -m pip install jiwer soundfile transformers espeakng-loader
    python benchmarks/say.py runs/say-1 --sentences 100

Held-out sentences (the test split) are said by the model, by espeak-ng (the recordings), and by espeak-ng through the
model's levels and the same Griffin-Lim (the quantised reference): what the model could reach at best. Whisper tiny.en
writes down all of them, each in a full window: greedily, and again at higher temperatures where an answer repeats
itself or is improbable (its paper, section 4.5). Texts are normalised by transformers' EnglishTextNormalizer.
Word and character error rates are of all sentences together; 95 % intervals by drawing sentences a thousand times.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np

WHISPER = "whisper-tiny-en"


def error_rates(references: list[str], answers: list[str]) -> str:
    """Word and character error rate with their intervals, as a row of a table."""
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise, rows = EnglishTextNormalizer({}), []
    for reference, answer in zip(references, answers, strict=True):
        wanted, got = normalise(reference), normalise(answer)
        words, characters = jiwer.process_words(wanted, got), jiwer.process_characters(wanted, got)
        rows.append(
            (
                words.substitutions + words.deletions + words.insertions,
                len(wanted.split()),
                characters.substitutions + characters.deletions + characters.insertions,
                len(wanted),
            )
        )
    table_S4 = np.array(rows)
    drawn = table_S4[np.random.default_rng(0).integers(0, len(rows), (1000, len(rows)))].sum(axis=1)
    cells = []
    for wrong, of in ((0, 1), (2, 3)):
        low, high = np.quantile(drawn[:, wrong] / drawn[:, of], [0.025, 0.975])
        cells.append(f"{table_S4[:, wrong].sum() / table_S4[:, of].sum():6.1%} ({low:.1%} to {high:.1%})")
    return " | ".join(cells)


SIDES = {
    "model": "the model",
    "levels": "the recordings as levels, through the same Griffin-Lim",
    "frames": "the recordings as frames, through the same Griffin-Lim",
    "recordings": "the recordings",
}


def sounds_of(side: str, bundle: Any, texts: list[str], recordings: list[np.ndarray], **how: Any) -> list[np.ndarray]:
    """The sounds of a side, at the processor's rate."""
    from glassformer.generation.say import say

    p = bundle.processor
    if side == "recordings":
        return recordings
    if side == "model":
        start = time.process_time()
        said = [say(bundle.model, p, text, **how) for text in texts]
        seconds = sum(speech.seconds for speech in said)
        cut = sum(not sentence.ended for speech in said for sentence in speech.said)
        print(f"{seconds:.0f} s said in {time.process_time() - start:.0f} s of computing; {cut} not ended by the model")
        return [speech.samples for speech in said]
    frames = [p.audio.log_mel(sound, -(-len(sound) // p.hop)) for sound in recordings]
    return [p.decode(p.levels(f)) if side == "levels" else p.audio.decode(f) for f in frames]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run")
    parser.add_argument("--sentences", type=int, default=100)
    parser.add_argument("--sides", default=",".join(SIDES), help=f"default: {','.join(SIDES)}")
    parser.add_argument("--voice", help="default: the first one of the model")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--data", default="plain-sentences")
    parser.add_argument("--words-a-minute", type=int, default=175)
    given = parser.parse_args()
    if unknown := set(given.sides.split(",")) - set(SIDES):
        parser.error(f"--sides {','.join(sorted(unknown))}: give some of {','.join(SIDES)}")

    import io

    import soundfile

    import glassformer as gf
    from glassformer.data.espeak import synthesize
    from glassformer.data.speech import load_sentences
    from glassformer.generation import TranscriptionSettings, transcribe

    bundle, whisper = gf.load(given.run), gf.load(WHISPER)
    texts = load_sentences(given.data)["test"][: given.sentences]
    voice = given.voice or bundle.processor.voices[0]
    settings = TranscriptionSettings(times=False, silence=1.0)
    parts = whisper.model, whisper.tokenizer, whisper.source_processor
    print(f"{len(texts)} sentences, voice {voice}\n\n| | word error rate | character error rate |\n|---|---|---|")
    shown: dict[str, list[str]] = {}
    recordings = [s.samples_N.astype(np.float32) / 32768 for s in synthesize(texts, voice, given.words_a_minute)]
    for side in given.sides.split(","):
        files = []
        for sound in sounds_of(side, bundle, texts, recordings, voice=voice, temperature=given.temperature):
            file = io.BytesIO()
            soundfile.write(file, sound, bundle.processor.rate, format="WAV")
            files.append(file.getvalue())
        shown[side] = [found.text.strip() for found in transcribe(*parts, files, settings)]
        print(f"| {SIDES[side]} | {error_rates(texts, shown[side])} |", flush=True)
    print()
    for text, heard in list(zip(texts, shown[given.sides.split(",")[0]], strict=True))[:10]:
        print(f"{text}  ->  {heard}")


if __name__ == "__main__":
    main()
