"""How fast text becomes ids: our bulk encoders against tiktoken's batch encoder and the `tokenizers` library.

    python benchmarks/tokenize_text.py [--megabytes 20] [--rounds 5] [--vocab-size 4096]

The lines of Tiny Shakespeare are shuffled and repeated into documents of about 64 kB until there are enough. All
contestants encode the same documents with the same vocabulary on the same threads, in turn, round after round, so that
a busy machine is busy for all; ids are checked to be equal first. Prints JSON: MB/s (10^6 bytes of UTF-8) by the clock,
median, least and most; the median per second of processor time (all threads), which neighbours on the machine disturb
less; and the median over the rounds of ours / tiktoken.

`tiktoken` is `encode_ordinary_batch` with the same two threads, over the pattern and merges that ours uses; it returns
Python lists, ours arrays. `whole text` is all of it as one document. The `tokenizers` library is several times slower
and gets every fifth document.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable

import _one_line  # noqa: F401  (first: it reports what is missing)

THREADS = 2
os.environ.setdefault("RAYON_NUM_THREADS", str(THREADS))  # before the `tokenizers` library starts its pool

import tiktoken  # noqa: E402
import tokenizers  # noqa: E402

from glassformer.data import CORPORA  # noqa: E402
from glassformer.processors.tokenizers import TOKENIZERS, bulk, kinds  # noqa: E402
from glassformer.processors.tokenizers.alphabet import unspell  # noqa: E402


def documents(text: str, megabytes: float) -> list[str]:
    """Documents of about 64 kB made of the text's lines in seeded random order."""
    rng, lines, out, size = random.Random(0), text.splitlines(keepends=True), [], 0
    while size < megabytes * 1e6:
        document = "".join(rng.choices(lines, k=2300))
        out.append(document)
        size += len(document.encode("utf-8"))
    return out


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--megabytes", type=float, default=20)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--vocab-size", type=int, default=4096)
    asked = options.parse_args()
    bulk.threads = lambda: THREADS

    text = CORPORA["tinyshakespeare"].texts()[0]
    texts = documents(text, asked.megabytes)
    joined = "".join(texts)
    size = len(joined.encode("utf-8")) / 1e6
    bpe = TOKENIZERS["bpe"]([text], vocab_size=asked.vocab_size)
    characters = TOKENIZERS["characters"]([text])
    raw = TOKENIZERS["bytes"]()
    ranks = {unspell(token): i for token, i in bpe._vocabulary.items() if i != bpe.end_of_text}
    reference = tiktoken.Encoding("same", pat_str=kinds.BPE_PATTERN, mergeable_ranks=ranks, special_tokens={})

    fifth = texts[::5]
    sizes = {"tokenizers encode_batch_fast": sum(len(text.encode("utf-8")) for text in fifth) / 1e6}
    contestants: dict[str, Callable[[], object]] = {
        "ours, bpe": lambda: bpe.encode_documents(texts),
        "tiktoken encode_ordinary_batch": lambda: reference.encode_ordinary_batch(texts, num_threads=THREADS),
        "ours, bpe, whole text": lambda: bpe.encode_to_array(joined),
        "tokenizers encode_batch_fast": lambda: bpe._library.encode_batch_fast(fifth, add_special_tokens=False),
        "ours, characters": lambda: characters.encode_to_array(joined),
        "ours, bytes": lambda: raw.encode_to_array(joined),
    }
    ours = [ids.tolist() for ids in bpe.encode_documents(texts)]
    assert ours == reference.encode_ordinary_batch(texts, num_threads=THREADS), "ids differ from tiktoken's"
    assert ours[0] == bpe._library.encode(texts[0]).ids, "ids differ from the tokenizers library's"
    del ours

    clock: dict[str, list[float]] = {name: [] for name in contestants}
    processor: dict[str, list[float]] = {name: [] for name in contestants}
    for contestant in contestants.values():
        contestant()  # warm-up
    for _ in range(asked.rounds):
        for name, contestant in contestants.items():
            start, cpu_start = time.perf_counter(), time.process_time()
            contestant()
            clock[name].append(sizes.get(name, size) / (time.perf_counter() - start))
            processor[name].append(sizes.get(name, size) / (time.process_time() - cpu_start))

    def ratio(speeds: dict[str, list[float]]) -> float:
        pairs = zip(speeds["ours, bpe"], speeds["tiktoken encode_ordinary_batch"], strict=True)
        return round(statistics.median(ours / theirs for ours, theirs in pairs), 2)

    result = {
        "megabytes": round(size, 1),
        "documents": len(texts),
        "threads": THREADS,
        "rounds": asked.rounds,
        "vocab_size": bpe.vocab_size,
        "versions": {
            "tiktoken": tiktoken.__version__,
            "tokenizers": tokenizers.__version__,
            "python": platform.python_version(),
        },
        "megabytes_per_second": {
            name: {
                "median": round(statistics.median(speeds), 1),
                "least": round(min(speeds), 1),
                "most": round(max(speeds), 1),
                "median_per_processor_second": round(statistics.median(processor[name]), 1),
            }
            for name, speeds in clock.items()
        },
        "ours_over_tiktoken": ratio(clock),
        "ours_over_tiktoken_per_processor_second": ratio(processor),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
