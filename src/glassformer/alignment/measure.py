"""What a model writes, measured: gold reward, reward of the reward model, KL to the start, distinct tokens.

Every answer is sampled at temperature 1 from the whole distribution, so that

    KL(model || start) = E over answers of the model: log p(answer) - log p_start(answer)

is the mean over the answers. Best-of-n is measured on the start's own answers: n of N answers to a prompt, drawn at
random, of which the reward model picks one (the estimator of Nakano et al. 2021, https://arxiv.org/abs/2112.09332,
appendix I).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from glassformer.data.chats import ChatRow
from glassformer.generation.eval_mode import evaluating
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.reward_functions import RewardFunction, rewards_of_rollouts
from glassformer.tasks.rollouts import RollOut, roll_out, sequences

ROWS = 64
"""Answers whose log-probabilities are computed together."""
Prompts = Sequence[tuple[ChatRow, list[int]]]
SHOWN = 3
"""Answers that are kept as text."""
Measured = dict[str, Any]


@torch.inference_mode()
def log_probs(model: Any, rollouts: Sequence[RollOut]) -> np.ndarray:
    """log p of each answer, (B,)."""
    device = next(model.parameters()).device
    found = []
    with evaluating(model):
        for start in range(0, len(rollouts), ROWS):
            inputs_BT, targets_BT = sequences(rollouts[start : start + ROWS])
            found.append(token_log_probs(model, inputs_BT.to(device), targets_BT.to(device)).sum(dim=1).cpu())
    return torch.cat(found).double().numpy()


def scores(function: RewardFunction, rollouts: Sequence[RollOut]) -> np.ndarray:
    """The reward of each answer, (B,)."""
    return rewards_of_rollouts(function, rollouts).double().numpy()


def measure(
    model: Any,
    tokenizer: Any,
    start: Any,
    prompts: Prompts,
    rewards: dict[str, RewardFunction],
    *,
    max_new_tokens: int,
    seed: int,
) -> Measured:
    """One answer to each prompt. Means by name, with half the width of the 95 % interval over prompts as NAME_interval:
    each of `rewards`, kl and length; the shares of distinct tokens; `answers`: the first texts with their prompts."""
    rollouts = roll_out(model, tokenizer, prompts, samples=1, max_new_tokens=max_new_tokens, seed=seed)
    found: Measured = {}
    columns = {name: scores(function, rollouts) for name, function in rewards.items()}
    columns["kl"] = log_probs(model, rollouts) - log_probs(start, rollouts)
    columns["length"] = np.array([float(len(r.ids)) for r in rollouts])
    for name, values_B in columns.items():
        found |= mean(name, values_B)
    return found | distinct([r.ids for r in rollouts]) | shown(rollouts)


def shown(rollouts: Sequence[RollOut]) -> Measured:
    """The first answers, each with its prompt."""
    return {"answers": [[r.row.prompt, r.text] for r in rollouts[:SHOWN]]}


def mean(name: str, values_B: np.ndarray) -> Measured:
    """Mean, standard deviation as NAME_spread, and half the width of the mean's 95 % interval."""
    spread = float(values_B.std(ddof=1)) if len(values_B) > 1 else math.nan
    half = 1.96 * spread / math.sqrt(len(values_B))
    return {name: float(values_B.mean()), f"{name}_interval": half, f"{name}_spread": spread}


def distinct(answers: Sequence[Sequence[int]]) -> Measured:
    """Distinct tokens and pairs of neighbours, as shares of all (Li et al. 2016, https://arxiv.org/abs/1510.03055,
    section 5.1): of all answers together, distinct_1 and distinct_2, and within an answer, on average."""
    found: Measured = {}
    for n in (1, 2):
        grams = [[tuple(ids[i : i + n]) for i in range(len(ids) - n + 1)] for ids in answers]
        grams = [own for own in grams if own]
        together = [gram for own in grams for gram in own]
        found[f"distinct_{n}"] = len(set(together)) / max(1, len(together))
        found[f"distinct_{n}_within"] = float(np.mean([len(set(own)) / len(own) for own in grams])) if grams else 0.0
    return found


def best_of_n(
    start: Any,
    tokenizer: Any,
    prompts: Prompts,
    rewards: dict[str, RewardFunction],
    *,
    samples: int,
    max_new_tokens: int,
    seed: int,
) -> list[Measured]:
    """Best-of-n by the reward `proxy` for n = 2, 4, ... up to `samples`, as `measure`. kl is measured (`kl_of_best`);
    kl_bound is log n - (n - 1) / n. Distinct tokens are those of the best of the first n answers."""
    rollouts = roll_out(start, tokenizer, prompts, samples=samples, max_new_tokens=max_new_tokens, seed=seed)
    columns = {name: scores(function, rollouts) for name, function in rewards.items()}
    columns["length"] = np.array([float(len(r.ids)) for r in rollouts])
    chances = np.exp(log_probs(start, rollouts)).reshape(-1, samples)
    order = np.argsort(columns["proxy"].reshape(-1, samples), axis=1, kind="stable")  # the best one last
    points: list[Measured] = []
    n = 2
    while n <= samples:
        picked = picking(samples, n)
        point: Measured = {"n": n}
        for name, values in columns.items():
            ranked = np.take_along_axis(values.reshape(-1, samples), order, axis=1)
            point |= mean(name, ranked @ picked)
        point |= mean("kl", kl_of_best(np.take_along_axis(chances, order, axis=1), n) @ picked)
        point["kl_bound"] = math.log(n) - (n - 1) / n
        firsts = columns["proxy"].reshape(-1, samples)[:, :n].argmax(axis=1)
        best = [rollouts[i * samples + int(k)] for i, k in enumerate(firsts)]
        points.append(point | distinct([r.ids for r in best]) | shown(best))
        n *= 2
    return points


def picking(samples: int, n: int) -> np.ndarray:
    """Of answers in order of their reward, (samples,): with what probability is each the best of n drawn without
    replacement?

    >>> picking(3, 2).round(3).tolist()
    [0.0, 0.333, 0.667]
    """
    return np.array([math.comb(k, n - 1) / math.comb(samples, n) for k in range(samples)])


def kl_of_best(chances: np.ndarray, n: int) -> np.ndarray:
    """KL of best-of-n to the model, given the probability of the answer that is the best; the bound log n - (n - 1) / n
    where that is small (Beirami et al. 2024, https://arxiv.org/abs/2401.01879, theorem 3 and their estimator): for a
    best answer of probability e

        (1 - e)^n (log n + (n - 1) log(1 - e) - (n - 1) / n) + (1 - (1 - e)^n) log((1 - (1 - e)^n) / e)
    """
    e = np.clip(chances, 1e-12, 1 - 1e-12)
    others = (1 - e) ** n
    best = -np.expm1(n * np.log1p(-e))
    return others * (math.log(n) + (n - 1) * np.log1p(-e) - (n - 1) / n) + best * np.log(best / e)
