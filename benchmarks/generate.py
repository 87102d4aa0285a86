"""Tokens per second with the key-value cache (fp32 and int8 weights) and without: 10.7 M parameters, batch 1.

    python benchmarks/generate.py [--rounds 5] [--tokens 1000]

Prints JSON. Both sides run in turn in one process, medians are told. Without the cache means what the lecture and
nanoGPT do: crop to the last 256 tokens and run the whole model for each new one (nanoGPT itself: 38 tokens/s on a
two-core AVX-512 machine). It gets a tenth of the tokens, all at full context, or the run would take minutes. The
weights are random: speed does not depend on what they are.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import torch

from glassformer.generation import Sampling
from glassformer.generation.sampling import choose, filtered_probabilities
from glassformer.generation.windows import Context
from glassformer.layers import int8_copy
from glassformer.models import Decoder
from glassformer.recipes import read_recipe
from glassformer.recipes.derive import model_config
from glassformer.training import set_threads


def tokens_per_second(model: Decoder, n_tokens: int, *, prompt_length: int, use_cache: bool) -> float:
    """Draw `n_tokens` after a random prompt, with top-k 200 as nanoGPT's sample.py does."""
    sampling, generator = Sampling(temperature=0.8, top_k=200), torch.Generator().manual_seed(1)
    prompt = torch.randint(65, (1, prompt_length), generator=generator)
    with torch.inference_mode():
        started = time.perf_counter()
        context = Context(model, prompt, window="half" if use_cache else "exact", use_cache=use_cache)
        for _ in range(n_tokens):
            ids = choose(filtered_probabilities(context.next_logits(), sampling), [generator])
            context.append(ids)
        return n_tokens / (time.perf_counter() - started)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=1000)
    args = parser.parse_args()
    threads = set_threads()
    torch.manual_seed(0)
    model = Decoder(model_config(read_recipe("shakespeare-char").model, vocab_size=65)).eval()
    small = int8_copy(model)
    sides: dict[str, list[float]] = {"cached_int8": [], "cached": [], "uncached": []}
    for _ in range(args.rounds + 1):  # the first round warms up
        sides["cached_int8"].append(tokens_per_second(small, args.tokens, prompt_length=1, use_cache=True))
        sides["cached"].append(tokens_per_second(model, args.tokens, prompt_length=1, use_cache=True))
        sides["uncached"].append(tokens_per_second(model, args.tokens // 10, prompt_length=256, use_cache=False))
    int8, cached, uncached = (statistics.median(values[1:]) for values in sides.values())
    result = {
        "what": "tokens per second, batch 1",
        "parameters": model.parameter_count(),
        "tokens": args.tokens,
        "threads": threads,
        "cached_int8": round(int8, 1),
        "cached": round(cached, 1),
        "uncached": round(uncached, 1),
        "ratio_int8": round(int8 / uncached, 1),
        "ratio": round(cached / uncached, 1),
        "times_38": round(int8 / 38, 1),
        "rounds": {name: [round(value, 1) for value in values[1:]] for name, values in sides.items()},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
