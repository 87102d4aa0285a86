"""llama.cpp as the other side of `smollm2.py`: a process of its own, asked in lines of JSON.

    PYTHON benchmarks/llama_worker.py model.gguf THREADS

It needs llama-cpp-python alone, so that it can live in an environment of its own (no wheels: about five minutes to
build). Requests: {"do": "decode", "ids": [...], "n": 128}, {"do": "prefill", "ids": [...]} and
{"do": "nats", "windows": [[...], ...]}; answers: {"seconds": s} or {"nats": [of each window, ...]}.
"""

from __future__ import annotations

import json
import sys
import time

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy
from llama_cpp import Llama


def decode(llama: Llama, ids: list[int], n: int) -> dict[str, float]:
    """Seconds for n tokens after the first, the likeliest each time."""
    llama.reset()
    tokens = llama.generate(ids, temp=0.0, repeat_penalty=1.0)
    next(tokens)
    started = time.perf_counter()
    for _ in range(n):
        next(tokens)
    return {"seconds": time.perf_counter() - started}


def prefill(llama: Llama, ids: list[int]) -> dict[str, float]:
    llama.reset()
    started = time.perf_counter()
    llama.eval(ids)
    return {"seconds": time.perf_counter() - started}


def nats(llama: Llama, windows: list[list[int]]) -> dict[str, list[float]]:
    """Of every token but the first of each window."""
    found = []
    for window in windows:
        llama.reset()
        llama.eval(window)
        logits = numpy.array(llama.scores[: len(window) - 1], dtype=numpy.float64)
        logits -= logits.max(axis=1, keepdims=True)
        chosen = logits[numpy.arange(len(window) - 1), window[1:]]
        found.append(float((numpy.log(numpy.exp(logits).sum(axis=1)) - chosen).sum()))
    return {"nats": found}


def main(path: str, threads: int) -> None:
    def open_model(every_logit: bool) -> Llama:
        return Llama(path, n_ctx=1024, n_batch=512, n_threads=threads, n_threads_batch=threads, logits_all=every_logit,
                     verbose=False)  # fmt: skip

    llama = open_model(False)
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        what = asked.pop("do")
        if what == "nats":
            shown = nats(open_model(True), **asked)
        else:
            shown = {"decode": decode, "prefill": prefill}[what](llama, **asked)
        print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
