"""What a grammar costs a token: SmolLM2-135M-Instruct (49,152 tokens) with and without a JSON schema.

    glassformer pull smollm2-135m-instruct
    python benchmarks/constrained_output.py [--dtype int4] [--rounds 5]

Prints JSON. Both sides write the same number of tokens after the same prompt, in turns; medians over rounds. `mask_us`
are the times of one token's mask (the token before it parsed, the set of allowed tokens, -inf in the logits).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch

import glassformer as gf
from glassformer.generation import Grammar, generate
from glassformer.generation.grammar import GrammarState
from glassformer.threads import set_threads

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 20},
        "age": {"type": "integer", "minimum": 0, "maximum": 130},
        "languages": {"type": "array", "items": {"enum": ["English", "German", "French"]}, "maxItems": 3},
    },
    "required": ["name", "age", "languages"],
    "additionalProperties": False,
}
PROMPT = "Twenty people of a village, with their ages and the languages that they speak, as JSON:\n"
TOKENS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtype", default="int4")
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    set_threads()
    model, tokenizer = gf.load("smollm2-135m-instruct", dtype=given.dtype)
    schema = {"type": "array", "items": PERSON, "minItems": 20}

    def seconds(call):
        started = time.perf_counter()
        result = call()
        return time.perf_counter() - started, result

    first, grammar = seconds(lambda: Grammar.json_schema(tokenizer, schema))
    again, grammar = seconds(lambda: Grammar.json_schema(tokenizer, schema))
    settings = {"max_new_tokens": TOKENS, "temperature": 0.7}
    rates, masks = {"free": [], "schema": []}, []
    for seed in range(given.rounds):
        for side, rule in (("free", None), ("schema", grammar)):
            took, (done,) = seconds(lambda: generate(model, tokenizer, PROMPT, seed=seed, grammar=rule, **settings))  # noqa: B023
            rates[side].append(len(done.pieces) / took)
        masks += mask_times(grammar.start(tokenizer.ends, tokenizer.vocab_size), [p.token for p in done.pieces])
    masks.sort()
    shown = {
        "dtype": given.dtype,
        "compile_first_s": round(first, 3),  # with the tokenizer's vocabulary
        "compile_s": round(again, 4),
        "tokens_per_second": {side: round(statistics.median(values), 1) for side, values in rates.items()},
        "mask_us": {f"p{q}": round(1e6 * masks[len(masks) * q // 100]) for q in (50, 90, 99)},
        "tokens": len(masks),
    }
    print(json.dumps(shown, indent=2))


def mask_times(state: GrammarState, tokens: list[int]) -> list[float]:
    """Seconds of each token's mask."""
    logits_V, times = torch.zeros(len(state.allowed_V)), []
    for token in tokens[:-1]:
        started = time.perf_counter()
        state.accept(token)
        state.mask(logits_V)
        times.append(time.perf_counter() - started)
    return times


if __name__ == "__main__":
    main()
