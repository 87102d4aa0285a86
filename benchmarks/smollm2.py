"""SmolLM2-135M-Instruct on a CPU: tokens per second and perplexity, beside transformers and llama.cpp.

    glassformer pull smollm2-135m-instruct
    python benchmarks/smollm2.py [--rounds 5] [--llama-python PYTHON --gguf FILE.gguf]

Prints JSON. All sides have the same weights, those of a Q4_1 file: exactly so in auto, fp32 and int4 (its head has 8
bits), rounded in bf16; `int8` rounds them once more. `auto` computes in fp32, `int4` and `int8` round vectors too. They
take turns; it prints medians. Decoding is all of it (engine, choice of the likeliest token, text) after a prompt of 32
tokens, batch 1; prefill is 512 tokens. llama.cpp runs in a process of its own (`llama_worker.py`), given the Python
that has llama-cpp-python and the GGUF file that was pulled.
Perplexity: every token but the first of windows of 256, of Tiny Shakespeare and of film reviews. Greedy: ten prompts
are continued by `auto` to --greedy tokens in all; at each, the token is compared with the likeliest one of transformers
in fp32, which reads the same text; `differ` has the gap between the two logits where they are not the same.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

import glassformer as gf
from glassformer.data import CORPORA, EXAMPLE_SETS
from glassformer.generation import Engine, Request, Sampling
from glassformer.threads import set_threads

NAME = "smollm2-135m-instruct"
PROMPT = (
    "The capital of France is Paris, and the capital of Germany is Berlin. The longest river of Europe is the Volga, "
    "and the highest mountain of Africa is Kilimanjaro. The oldest of the great libraries was in"
)


class Ours:
    def __init__(self, dtype: str):
        started = time.perf_counter()
        self.model, self.tokenizer = gf.load(NAME, dtype=dtype)
        self.load_seconds = time.perf_counter() - started

    def decode(self, ids: list[int], n: int) -> float:
        engine = Engine(self.model, self.tokenizer, max_rows=1)
        engine.submit(
            Request(tuple(ids), max_new_tokens=n + 1, sampling=Sampling(temperature=0), end_tokens=frozenset())
        )
        engine.step()
        started = time.perf_counter()
        while engine.busy:
            engine.step()
        return time.perf_counter() - started

    def greedy(self, ids: list[int], n: int) -> list[int]:
        engine = Engine(self.model, self.tokenizer, max_rows=1)
        engine.submit(Request(tuple(ids), max_new_tokens=n, sampling=Sampling(temperature=0), end_tokens=frozenset()))
        found = list[int]()
        while engine.busy:
            found += [event.piece.token for event in engine.step()]
        return found

    def prefill(self, ids: list[int]) -> float:
        cache = self.model.new_row_cache(1, 1024)
        cache.resize(1, len(ids))
        started = time.perf_counter()
        with torch.inference_mode():
            self.model.logits(self.model.hidden(torch.tensor([ids]), cache=cache.rows(0, 1))[:, -1:])
        return time.perf_counter() - started

    def nats(self, windows: list[list[int]]) -> list[float]:
        """Of each window, all tokens but the first."""
        nats = []
        for window in windows:
            cache = self.model.new_row_cache(1, 1024)
            cache.resize(1, len(window))
            with torch.inference_mode():
                logits_TV = self.model(torch.tensor([window]), cache=cache.rows(0, 1))[0, :-1].float()
            nats.append(float(torch.nn.functional.cross_entropy(logits_TV, torch.tensor(window[1:]), reduction="sum")))
        return nats


class Transformers:
    """The same folder in transformers, with its own cache and its own `generate`."""

    def __init__(self, dtype: torch.dtype):
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        from glassformer.hub import model_folder_of

        logging.set_verbosity_error()
        started = time.perf_counter()
        self.model = AutoModelForCausalLM.from_pretrained(model_folder_of(NAME), dtype=dtype).eval()
        self.load_seconds = time.perf_counter() - started

    def decode(self, ids: list[int], n: int) -> float:
        prompt = torch.tensor([ids])
        fixed = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(prompt)}
        with torch.inference_mode():
            times = []
            for new in (1, n + 1):  # the time of the prompt is taken off
                started = time.perf_counter()
                self.model.generate(prompt, min_new_tokens=new, max_new_tokens=new, **fixed)
                times.append(time.perf_counter() - started)
        return times[1] - times[0]

    def prefill(self, ids: list[int]) -> float:
        started = time.perf_counter()
        with torch.inference_mode():
            self.model(torch.tensor([ids]), use_cache=True, logits_to_keep=1)
        return time.perf_counter() - started


class LlamaCpp:
    def __init__(self, python: str, gguf: str, threads: int):
        worker = Path(__file__).with_name("llama_worker.py")
        self.process = subprocess.Popen(
            [python, str(worker), gguf, str(threads)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not (line := self.process.stdout.readline()):
            raise SystemExit("llama.cpp's process has ended; what it printed stands above")
        return json.loads(line)

    def _ask(self, **asked: Any) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def decode(self, ids: list[int], n: int) -> float:
        return self._ask(do="decode", ids=ids, n=n)["seconds"]

    def prefill(self, ids: list[int]) -> float:
        return self._ask(do="prefill", ids=ids)["seconds"]

    def nats(self, windows: list[list[int]]) -> list[float]:
        return self._ask(do="nats", windows=windows)["nats"]


def texts() -> dict[str, str]:
    shakespeare = CORPORA["tinyshakespeare"].file(quiet=True).read_text(encoding="utf-8")
    reviews = EXAMPLE_SETS["reviews"].load(quiet=True)["test"]
    return {"tiny shakespeare": shakespeare, "reviews": "\n\n".join(example.source for example in reviews[:200])}


def difference(a: list[float], b: list[float]) -> tuple[float, float]:
    gaps = [(x - y) / 255 for x, y in zip(a, b, strict=True)]
    return round(statistics.mean(gaps), 5), round(2 * statistics.stdev(gaps) / math.sqrt(len(gaps)), 5)


def greedy(ours: Ours, theirs: Transformers, text: str, n: int) -> dict[str, Any]:
    ids = ours.tokenizer.encode(text)
    compared, gaps = 0, list[float]()
    for start in range(0, 2000, 200):
        prompt = ids[start : start + 32]
        answer = ours.greedy(prompt, n // 10)
        whole = torch.tensor([prompt + answer])
        with torch.inference_mode():
            logits_TV = theirs.model(whole).logits[0, len(prompt) - 1 : -1]
        chosen = logits_TV.gather(1, torch.tensor(answer)[:, None])[:, 0]
        gaps += [gap for gap in (logits_TV.amax(dim=1) - chosen).tolist() if gap > 0]
        compared += len(answer)
    return {"compared": compared, "equal": compared - len(gaps), "differ": [round(gap, 6) for gap in gaps]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--windows", type=int, default=24, help="of each text, for the perplexity")
    parser.add_argument("--greedy", type=int, default=2000, metavar="N", help="tokens to compare with transformers'")
    parser.add_argument("--llama-python", help="a Python that has llama-cpp-python")
    parser.add_argument("--gguf", help="the file that was pulled, for llama.cpp")
    args = parser.parse_args()
    if bool(args.llama_python) != bool(args.gguf):
        parser.error("--llama-python and --gguf go together")
    threads = set_threads()
    sides: dict[str, Any] = {f"glassformer {dtype}": Ours(dtype) for dtype in ("auto", "int4", "int8", "bf16", "fp32")}
    sides |= {"transformers fp32": Transformers(torch.float32), "transformers bf16": Transformers(torch.bfloat16)}
    if args.llama_python:
        sides["llama.cpp Q4_1"] = LlamaCpp(args.llama_python, args.gguf, threads)
    tokenizer = sides["glassformer fp32"].tokenizer
    prompt = tokenizer.encode(PROMPT)[:32]
    long = tokenizer.encode(texts()["tiny shakespeare"][:4000])[:512]
    decoding: dict[str, list[float]] = {name: [] for name in sides}
    reading: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(args.rounds + 1):  # the first one warms up
        for name, side in sides.items():
            slow = name.startswith(("transformers", "glassformer bf16", "glassformer fp32"))
            n = args.tokens // 4 if slow else args.tokens
            seconds = side.decode(prompt, n)
            decoding[name].append(n / seconds)
            reading[name].append(len(long) / side.prefill(long))
        print(f"round {round_number}", file=sys.stderr)
    perplexities: dict[str, dict[str, float]] = {}
    nats: dict[str, list[float]] = {}
    for what, text in texts().items():
        ids = tokenizer.encode(text[:400_000])[: 256 * args.windows]
        windows = [ids[i : i + 256] for i in range(0, len(ids) - 255, 256)]
        for name, side in sides.items():
            if hasattr(side, "nats"):
                found = side.nats(windows)
                nats.setdefault(name, []).extend(found)
                perplexities.setdefault(name, {})[what] = round(math.exp(sum(found) / len(windows) / 255), 3)
    result: dict[str, Any] = {"threads": threads, "rounds": args.rounds, "sides": {}}
    text = texts()["tiny shakespeare"]
    result["greedy"] = greedy(sides["glassformer auto"], sides["transformers fp32"], text, args.greedy)
    for name, side in sides.items():
        result["sides"][name] = {
            "decode_tokens_per_second": round(statistics.median(decoding[name][1:]), 1),
            "prefill_tokens_per_second": round(statistics.median(reading[name][1:]), 1),
            "perplexity": perplexities.get(name),
            "load_seconds": round(getattr(side, "load_seconds", math.nan), 2),
        }
    best = result["sides"]["glassformer int4"]
    for other in ("llama.cpp Q4_1", "transformers fp32", "transformers bf16"):
        if other in sides:
            for what in ("decode", "prefill"):
                key = f"{what}_tokens_per_second"
                result[f"int4_{what}_against_{other}"] = round(best[key] / result["sides"][other][key], 2)
    result["nats_per_token_against_fp32"] = {  # mean and twice its standard error, over windows of both texts
        name: difference(found, nats["glassformer fp32"]) for name, found in nats.items()
    }
    if args.llama_python:
        result["nats_per_token_int4_against_llama.cpp"] = difference(nats["glassformer int4"], nats["llama.cpp Q4_1"])
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
