"""How fast text becomes a token store, and in how much memory. Prints JSON.

    python benchmarks/prepare_data.py                      # 200 MB, characters and BPE
    python benchmarks/prepare_data.py --megabytes 2000     # the claim: 2 GB in bounded memory
    python benchmarks/prepare_data.py --megabytes 50 --tokenizers bpe

The text is generated (words of a Zipf-like distribution in sentences and paragraphs, the same at every run). Each kind
is prepared in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)


def generate(path: Path, megabytes: int) -> None:
    """English-like text: 20,000 made-up words, the k-th as frequent as 1/k, in paragraphs of a few lines."""
    draw = random.Random(0)
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "er", "in", "on", "th", "ly")]
    words = ["".join(draw.choices(syllables, k=draw.choice((1, 1, 2, 2, 3)))) for _ in range(20_000)]
    weights = list(itertools.accumulate(1 / (k + 1) for k in range(len(words))))
    blocks = []
    for _ in range(16):  # 16 blocks of about 1 MB, written in a random order
        lines = []
        for _ in range(12_000):
            line = " ".join(draw.choices(words, cum_weights=weights, k=draw.randint(6, 18)))
            lines.append(line[0].upper() + line[1:] + draw.choice(".,.;?") + ("\n" if draw.random() < 0.1 else ""))
        blocks.append(("\n".join(lines) + "\n").encode())
    size = 0
    with open(path, "wb") as file:
        while size < megabytes * 1_000_000:
            size += file.write(draw.choice(blocks))


def measure(path: Path, kind: str, out: Path) -> dict[str, object]:
    """Prepare in this very process; the peak includes Python and its libraries."""
    from glassformer.data.prepare import prepare
    from glassformer.data.vocabulary import tokenizer_for

    began = time.perf_counter()
    tokenizer = tokenizer_for(str(path), kind, vocab_size=4096 if kind == "bpe" else None)
    learned = time.perf_counter()
    rss_learned = peak()
    store = prepare(str(path), tokenizer, out=out, progress=sys.stderr.isatty())
    seconds = time.perf_counter() - learned
    size = path.stat().st_size
    return {
        "tokenizer": kind,
        "megabytes": size / 1e6,
        "learn_seconds": round(learned - began, 2),
        "prepare_seconds": round(seconds, 2),
        "megabytes_per_second": round(size / 1e6 / seconds, 1),
        "tokens": len(store.split("train")) + len(store.split("validation")),
        "peak_megabytes_after_learning": rss_learned,
        "peak_megabytes": peak(),
    }


def peak() -> int:
    """Largest resident memory so far, in MB."""
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=200)
    parser.add_argument("--tokenizers", default="characters,bpe")
    parser.add_argument("--one", nargs=3, metavar=("FILE", "KIND", "OUT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        path, kind, out = options.one
        print(json.dumps(measure(Path(path), kind, Path(out))))
        return
    with tempfile.TemporaryDirectory(prefix="prepare-data-") as name:
        folder = Path(name)
        generate(folder / "text.txt", options.megabytes)
        results = {}
        for kind in options.tokenizers.split(","):
            command = [sys.executable, __file__, "--one", str(folder / "text.txt"), kind, str(folder / kind)]
            environment = {**os.environ, "GLASSFORMER_CACHE": str(folder / "cache")}
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
            results[kind] = json.loads(done.stdout)
    print(json.dumps({"cores": os.cpu_count(), **results}, indent=2))


if __name__ == "__main__":
    main()
