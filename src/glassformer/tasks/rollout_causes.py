"""What the metrics of a run that learns from its own answers show to be wrong; see `Task.causes`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

LITTLE = 0.05  # of the answers end
LEFT = 0.2  # of the entropy that the first steps had
MUCH = 0.5  # of the tokens are clipped
GAP = 0.3  # between engine and trainer, in nats a token; rounding to bf16 stays below
LAST = 4  # intervals that show a direction
FAR = 0.01  # KL of a token from sampler to trainer, in nats, where importance weights are to make up for it
CUT = 0.05  # of the importance weights are truncated
NOTHING_WRONG = {"ended": 1.0, "entropy": 1.0} | dict.fromkeys(
    ("sampler_gap", "sampler_kl", "truncated_weights", "kl", "clip_fraction", "length"), 0.0
)
"""For metrics that a task does not have."""
KL_MARGIN = 12.0
"""A mean of N samples of log p / p_ref is below -4.5 / N in one case of a thousand at most, where p and p_ref are near
each other (its variance is then twice its mean). This stands in place of 4.5."""


def causes(task: Any, history: Sequence[Mapping[str, float]]) -> dict[str, str]:
    """What is wrong in every task that rolls out, by a short name (`RollOutTask.causes`)."""
    history = [NOTHING_WRONG | dict(row) for row in history]
    now, first, last, found = history[-1], history[0], history[-LAST:], dict[str, str]()
    if task.ends and now["ended"] < LITTLE:
        what = "end of turn" if task.source.is_chat else "end of text"
        found["ended"] = (
            f"{what} never reached in {1 - now['ended']:.0%} of answers: raise task.max_new_tokens "
            f"({task.settings.max_new_tokens} now), or start from a model that was trained to end its answers "
            "(task.kind=sft)"
        )
    if sampler := _sampler(task, now):
        found["sampler"] = sampler
    n = now["steps"] * task.run.batch_size / task.uses
    if now["kl"] < -KL_MARGIN / n - 0.01:
        found["kl"] = (
            f"KL below zero ({now['kl']:.3g} nats an answer, over {n:,.0f} answers): they were not sampled from the "
            f"distribution that scores them (sampler_gap {now['sampler_gap']:.2g})"
        )
    if now["clip_fraction"] > MUCH:
        found["clip"] = (
            f"{now['clip_fraction']:.0%} of tokens are clipped and teach nothing: updates go too far; lower "
            "training.learning_rate, or use the same answers for fewer updates"
        )
    rewards = [row["val_reward"] for row in history if "val_reward" in row]
    if len(rewards) < LAST:
        return found
    if now["entropy"] < LEFT * first["entropy"] and max(rewards[1 - LAST :]) <= max(rewards[: 1 - LAST]):
        found["entropy"] = (
            f"entropy fell from {first['entropy']:.2g} to {now['entropy']:.2g} nats a token and the reward no longer "
            f"rises ({rewards[-1]:.3g}): answers hardly differ any more; if the task is not solved, lower "
            "training.learning_rate, raise task.temperature, or hold the model with task.beta"
        )
    longer = all(b["length"] > a["length"] for a, b in pairwise(last))
    if longer and all(b < a for a, b in pairwise(rewards[-LAST:])):
        found["length"] = (
            f"answers grow ({last[0]['length']:.0f} to {now['length']:.0f} tokens) while the held-out reward falls "
            f"({rewards[-LAST]:.3g} to {rewards[-1]:.3g}); lower the reward of long answers"
        )
    return found


def _sampler(task: Any, now: Mapping[str, float]) -> str | None:
    """How far the sampler is from the trainer, if it is too far."""
    dtype, cap = task.settings.rollout_dtype, task.importance_cap
    better = "training.precision=fp32" if dtype == "fp32" else "task.rollout_dtype=fp32"
    forced = "a generation_config.json that forbids or forces tokens"
    if cap is None and now["sampler_gap"] > GAP:
        return (
            f"sampler and trainer disagree by up to {now['sampler_gap']:.2g} nats on a token, so answers are not those "
            f"of the model that is trained: {forced}, or rounding (try {better})"
        )
    if now["sampler_kl"] > FAR or now["truncated_weights"] > CUT:
        return (
            f"answers come from a model too far from the one that is trained for weights to make up for it (KL "
            f"{now['sampler_kl']:.2g} nats a token, {now['truncated_weights']:.1%} of weights truncated at {cap:g}): "
            f"{forced}, or rounding of weights by task.rollout_dtype={dtype} (try "
            f"{'int8 or fp32' if dtype == 'int4' else better})"
        )
    return None
