"""Roll-outs in fp32, bf16, int8 and int4: tokens per second, the share of a training step, the gap to the trainer.

    glassformer pull smollm2-135m-instruct
    python benchmarks/rollouts.py [--rounds 3] [--sort RUN] [--draws 12] [--gradient]

Prints JSON. Two models: that of `sort-digits-grpo` (0.8 M parameters, 512 answers of about 9 tokens; RUN of
`sort-digits-sft`, trained here in half a minute if not given) and SmolLM2-135M-Instruct (16 answers of 32 tokens).
Number formats take turns; it prints medians. A roll-out is what an iteration of GRPO does: the copy of the weights, the
prompts, the answers and their text. `update` is what follows it: log-probabilities of the answers once without and once
with a gradient. `step` is both, beside fp32. `gradient`: GRPO's first one for sorting digits from 512 answers, in fp32
and in each format with equal random numbers, in several draws. `cosine`: of a pair, in the mean, and of two draws in
fp32. `along_fp32`: how long it is along fp32's mean over the other draws, as a part of fp32's, with its 95 % interval.
`beside_whole_answers`: the same beside int8 with the weight of the whole answer, which leaves nothing out, on the same
answers: with the weights of single tokens, and without weights. 1 means that the expected step is kept. --gradient:
this alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import torch
from scipy.stats import t

import glassformer as gf
from glassformer import recipes
from glassformer.data.chat_sets import load_chats
from glassformer.data.chats import chat_row
from glassformer.tasks import GRPO
from glassformer.tasks.chats import ChatSource
from glassformer.tasks.losses import IGNORED, token_log_probs
from glassformer.tasks.rollouts import RollOut, roll_out, sequences
from glassformer.tasks.sampler import CAP, distance, log_ratios, sampler_of
from glassformer.tasks.settings import RunSettings
from glassformer.threads import set_threads

DTYPES = ("fp32", "bf16", "int8", "int4")
QUESTIONS = [
    "What is the capital of Norway?",
    "Write a short poem about a river.",
    "How do I boil an egg?",
    "Explain in two sentences why the sky is blue.",
]


def update(model: Any, rollouts: list[RollOut]) -> float:
    """Seconds of the log-probabilities of answers, once without and once with a gradient."""
    started = time.perf_counter()
    gap(model, rollouts)
    token_log_probs(model, *sequences(rollouts)).sum().backward()
    model.zero_grad()
    return time.perf_counter() - started


def gap(model: Any, rollouts: list[RollOut]) -> tuple[float, ...]:
    """How far the sampler was from the model: `distance`."""
    inputs_BT, targets_BT = sequences(rollouts)
    counts_BT = targets_BT != IGNORED
    with torch.no_grad():
        log_probs_BT = token_log_probs(model, inputs_BT, targets_BT)
    return distance(log_ratios(rollouts, log_probs_BT, counts_BT)[counts_BT], CAP)


def measure(model: Any, tokenizer: Any, prompts: list[Any], samples: int, length: int, rounds: int) -> dict[str, Any]:
    seen: dict[str, list[tuple[float, ...]]] = {dtype: [] for dtype in DTYPES}
    updates = []
    for number in range(rounds + 1):  # the first round warms up
        for dtype, found in seen.items():
            started = time.perf_counter()
            sampler = sampler_of(model, dtype)
            copied = time.perf_counter()
            rollouts = roll_out(sampler, tokenizer, prompts, samples=samples, max_new_tokens=length, seed=number)
            seconds = time.perf_counter() - started
            tokens = sum(len(r.ids) for r in rollouts)
            found.append((copied - started, tokens / seconds, seconds / tokens, *gap(model, rollouts)))
        updates.append(update(model, rollouts))
    took = statistics.median(updates[1:])
    medians = {d: [statistics.median(column) for column in zip(*f[1:], strict=True)] for d, f in seen.items()}
    tokens = samples * len(prompts) * length
    whole = {dtype: m[2] * tokens + took for dtype, m in medians.items()}
    return {
        "answers": samples * len(prompts),
        "update_seconds": round(took, 2),
        **{
            dtype: {
                "tokens_per_second": round(m[1]),
                "beside_fp32": round(m[1] / medians["fp32"][1], 2),
                "step_beside_fp32": round(whole["fp32"] / whole[dtype], 2),
                "copy_seconds": round(m[0], 3),
                "sampler_gap": float(f"{m[3]:.2g}"),
                "sampler_kl": float(f"{m[4]:.2g}"),
                "truncated_weights": round(m[5], 4),
            }
            for dtype, m in medians.items()
        },
    }


class WholeAnswers(GRPO):
    """With the product of an answer's weights at each of its tokens."""

    def importance_weights(self, rollouts: Any, log_probs_BT: torch.Tensor, counts_BT: torch.Tensor) -> torch.Tensor:
        return log_ratios(rollouts, log_probs_BT, counts_BT).sum(1, keepdim=True).exp().expand_as(log_probs_BT)


class Unweighted(GRPO):
    """As if the trainer itself had answered."""

    def importance_weights(self, rollouts: Any, log_probs_BT: torch.Tensor, counts_BT: torch.Tensor) -> torch.Tensor:
        return torch.ones_like(log_probs_BT)


def gradient(model: Any, source: ChatSource, dtype: str, seed: int, kind: type[GRPO] = GRPO) -> torch.Tensor:
    """GRPO's first gradient of all weights, as one vector."""
    task = kind(reward="exact", samples=16, max_new_tokens=10, rollout_dtype=dtype)
    task.source, task.run = source, RunSettings(batch_size=512, sequence_length=32, seed=seed)
    task.begin(model.requires_grad_(True))
    (batch,) = task.batches("train").task.iteration(0)
    task.loss(model, batch).sum.backward()
    found = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    return found


def gradients(model: Any, tokenizer: Any, draws: int) -> dict[str, Any]:
    rows = [replace(row, answers=(), columns={"answer": row.answers[0]}) for row in load_chats("sort-digits")["train"]]
    source = ChatSource("sort-digits", {"train": rows}, tokenizer)
    found = {
        d: torch.stack([gradient(model, source, d, seed) for seed in range(draws)]) for d in ("fp32", "int8", "int4")
    }
    exact = found["fp32"]
    result: dict[str, Any] = {"draws": draws, "cosine": {}, "along_fp32": {}, "beside_whole_answers": {}}
    result["cosine"]["another draw"] = round(float(torch.cosine_similarity(exact[0], exact[1], dim=0)), 4)
    for dtype in ("int8", "int4"):
        cosines = torch.cosine_similarity(exact, found[dtype], dim=1)
        result["cosine"][dtype] = round(float(cosines.mean()), 4)
        result["along_fp32"][dtype] = along(found[dtype], exact)
    kinds = {"whole": WholeAnswers, "none": Unweighted}
    others = {n: torch.stack([gradient(model, source, "int8", s, k) for s in range(draws)]) for n, k in kinds.items()}
    result["beside_whole_answers"]["weights of tokens"] = along(found["int8"], others["whole"])
    result["beside_whole_answers"]["no weights"] = along(others["none"], others["whole"])
    return result


def along(gradients_KN: torch.Tensor, exact_KN: torch.Tensor) -> list[float]:
    """The part of pairs of gradients along the mean of the other exact ones, and half its 95 % interval."""
    draws = len(exact_KN)
    others_KN = (exact_KN.sum(0) - exact_KN) / (draws - 1)
    shares_K = ((gradients_KN - exact_KN) * others_KN).sum(1) / (exact_KN * others_KN).sum(1).mean()
    half = t.ppf(0.975, draws - 1) * float(shares_K.std()) / draws**0.5
    return [round(1 + float(shares_K.mean()), 4), round(half, 4)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sort", metavar="RUN")
    parser.add_argument("--draws", type=int, default=12)
    parser.add_argument("--gradient", action="store_true")
    args = parser.parse_args()
    result: dict[str, Any] = {"threads": set_threads()}
    with tempfile.TemporaryDirectory() as folder:
        sort = args.sort or recipes.train("sort-digits-sft", [], out=Path(folder) / "run").path
        model, tokenizer = gf.load(sort)
    prompts = [(row, tokenizer.encode(row.prompt)) for row in load_chats("sort-digits")["train"][:32]]
    result["gradient"] = gradients(model, tokenizer, args.draws)
    if args.gradient:
        print(json.dumps(result, indent=2))
        return
    result["sort-digits, 0.8 M"] = measure(model, tokenizer, prompts, 16, 10, args.rounds)
    model, tokenizer = gf.load("smollm2-135m-instruct")
    rows = [chat_row({"prompt": [{"role": "user", "content": text}]}, "") for text in QUESTIONS]
    prompts = [(row, tokenizer.chat.encode(row.prompt)) for row in rows]
    result["SmolLM2-135M"] = measure(model, tokenizer, prompts, 4, 32, args.rounds)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
