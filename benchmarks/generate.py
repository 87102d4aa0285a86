"""Tokens per second of generation on a CPU: the engine, and what the lecture and nanoGPT do.

    python benchmarks/generate.py [--rounds 5] [--tokens 500]

Prints JSON; both sides run in turn in one process; it prints medians. Three models with random weights (speed does not
depend on them): characters of 10.7 M parameters, one sample; the same, 64 samples at once; GPT-2's 124 M after a prompt
of 200 tokens. `int8`, `int4` and `fp32` are whole generation by the engine: drawing from the 200 likeliest tokens as
nanoGPT's sample.py does, text included. `uncached` crops to the last block_size tokens and runs the whole model for a
new one (nanoGPT itself: 38 tokens/s and 3.5 tokens/s on a two-core AVX-512 machine); it gets fewer tokens, all at full
context, or the run would take minutes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

from glassformer.generation import Engine, Request, Sampling, filtered_probabilities, next_logits, sample
from glassformer.hub.loading import as_dtype
from glassformer.models import Decoder
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer
from glassformer.recipes import read_recipe
from glassformer.recipes.shape import model_config
from glassformer.threads import set_threads

SAMPLING = Sampling(temperature=0.8, top_k=200)


def by_engine(model: Decoder, tokenizer: Tokenizer, prompt: list[int], n: int, samples: int = 1) -> float:
    """Tokens per second of all samples together, the time of the prompt left out."""
    engine = Engine(model, tokenizer, max_rows=samples)
    engine.submit(
        Request(tuple(prompt), max_new_tokens=n + 1, samples=samples, sampling=SAMPLING, end_tokens=frozenset())
    )
    while engine.waiting or engine.ready < samples:
        engine.step()
    started, shown = time.perf_counter(), 0
    while engine.busy:
        shown += len(engine.step())
    return shown / (time.perf_counter() - started)


def uncached(model: Decoder, prompt: list[int], n: int) -> float:
    generator = torch.Generator().manual_seed(1)
    with torch.inference_mode():
        started = time.perf_counter()
        ids_1T = torch.tensor([prompt])
        for _ in range(n):
            ids_1 = sample(filtered_probabilities(next_logits(model, ids_1T), SAMPLING), [generator])
            ids_1T = torch.cat((ids_1T, ids_1[:, None]), dim=1)
        return n / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=500)
    args = parser.parse_args()
    threads = set_threads()
    torch.manual_seed(0)
    characters = TOKENIZERS["characters"](["".join(map(chr, range(32, 96))) + "\n"])
    small = Decoder(model_config(read_recipe("shakespeare-char").model, vocab_size=65)).eval()
    gpt2_tokenizer = TOKENIZERS["gpt2"]([])
    gpt2 = Decoder(model_config(read_recipe("gpt2-124m").model, vocab_size=gpt2_tokenizer.vocab_size)).eval()
    small_int8, gpt2_int8 = as_dtype(small, "int8"), as_dtype(gpt2, "int8")
    small_int4, gpt2_int4 = as_dtype(small, "int4"), as_dtype(gpt2, "int4")
    draws = torch.Generator().manual_seed(1)
    full, words = (
        torch.randint(65, (256,), generator=draws).tolist(),
        torch.randint(50_000, (200,), generator=draws).tolist(),
    )
    n = args.tokens
    cases = {
        "10.7M": {
            "int8": lambda: by_engine(small_int8, characters, full[:1], min(n, 255)),
            "int4": lambda: by_engine(small_int4, characters, full[:1], min(n, 255)),
            "fp32": lambda: by_engine(small, characters, full[:1], min(n, 255)),
            "uncached": lambda: uncached(small, full, n // 10),
        },
        "10.7M, 64 samples": {
            "int8": lambda: by_engine(small_int8, characters, full[:1], min(n, 250) // 2, samples=64),
            "int4": lambda: by_engine(small_int4, characters, full[:1], min(n, 250) // 2, samples=64),
            "fp32": lambda: by_engine(small, characters, full[:1], min(n, 250) // 2, samples=64),
        },
        "124M after 200 tokens": {
            "int8": lambda: by_engine(gpt2_int8, gpt2_tokenizer, words, n // 8),
            "int4": lambda: by_engine(gpt2_int4, gpt2_tokenizer, words, n // 8),
            "fp32": lambda: by_engine(gpt2, gpt2_tokenizer, words, n // 16),
            "uncached": lambda: uncached(gpt2, words, max(2, n // 100)),
        },
    }
    result: dict[str, object] = {"what": "tokens per second", "threads": threads}
    for case, sides in cases.items():
        seen: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(args.rounds + 1):  # the first round warms up
            for name, side in sides.items():
                seen[name].append(side())
        medians = {name: statistics.median(values[1:]) for name, values in seen.items()}
        slowest = list(sides)[-1]
        result[case] = {
            **{name: round(value, 1) for name, value in medians.items()},
            f"int8 against {slowest}": round(medians["int8"] / medians[slowest], 1),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
