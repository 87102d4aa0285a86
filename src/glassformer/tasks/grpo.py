"""Group-relative policy optimization: an answer is as good as its reward is above that of the other answers to its
prompt. No critic.

    A_i = (r_i - mean of the group) / (standard deviation of the group)
    loss of a token = - min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) + beta KL(model || reference)

Shao et al. 2024, https://arxiv.org/abs/2402.03300, equations 3 and 4. The corrections of Dr. GRPO (Liu et al. 2025,
https://arxiv.org/abs/2503.20783: no division by the length, none by the standard deviation) and of DAPO (Yu et al.
2025, https://arxiv.org/abs/2503.14476: clip higher, one mean over all tokens) are settings, and so is the baseline of
RLOO (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740, equation 8: the mean of the *other* answers).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.losses import IGNORED, token_log_probs
from glassformer.tasks.rollout_task import RollOutSettings, RollOutTask
from glassformer.tasks.rollouts import RollOut, sequences
from glassformer.tasks.settings import TaskSettings


class GRPOSettings(RollOutSettings):
    """[task] of `grpo`."""

    samples: int = Field(default=8, ge=2)
    """answers to each prompt: the group"""
    updates: int = Field(default=1, ge=1)
    """updates of the weights with the same answers"""
    clip_low: float = Field(default=0.2, gt=0, lt=1)
    clip_high: float = Field(default=0.2, gt=0)
    """0.28 in DAPO: rare tokens may rise more"""
    beta: float = Field(default=0.0, ge=0)
    """weight of the KL to the model that the run starts from"""
    measure_kl: bool = True
    """measure the KL even where beta is 0, in a run that starts from a model: a second model and one more forward pass
    of each answer"""
    scale: Literal["group", "none", "rloo"] = "group"
    """group: divide by the group's standard deviation. none: Dr. GRPO. rloo: the reward minus the mean of the other
    answers"""
    mean: Literal["tokens", "answers", "constant"] = "tokens"
    """tokens: over all tokens of the step (DAPO). answers: over the tokens of an answer, then over answers (the
    paper's; long answers count less a token). constant: divide by max_new_tokens (Dr. GRPO)"""


FEW_GROUPS = 0.2  # have spread


class GRPO(RollOutTask):
    """A batch is (inputs_BT, targets_BT, old log-probabilities_BT, reference log-probabilities_BT, advantages_BT
    times importance weights, facts_BF)."""

    Settings: ClassVar[type[TaskSettings]] = GRPOSettings
    FACTS: ClassVar[tuple[str, ...]] = (*RollOutTask.FACTS, "groups_with_spread", "reward_std", "kl")

    @property
    def uses(self) -> int:
        return int(self.settings.updates)

    @property
    def measures_kl(self) -> bool:
        """Whether there is a reference to compare with."""
        return bool(self.settings.beta) or (self.settings.measure_kl and self.run.start_from is not None)

    def check(self, config: Any) -> None:
        super().check(config)
        if config is not None:
            self._check_groups(self.run.batch_size)

    def _check_groups(self, answers: int) -> None:
        if answers % self.settings.samples:
            raise UsageError(
                f"training.batch_size={self.run.batch_size} holds no whole groups of task.samples="
                f"{self.settings.samples} answers for each process; use a multiple of {self.settings.samples}"
            )

    def iteration(self, number: int) -> list[Batch]:
        """Answers to the prompts of an iteration as one batch, `updates` times."""
        s = self.settings
        self._check_groups(self.share)
        rollouts, rewards_B = self.roll_out(number, self.share // s.samples, s.samples)
        return [self.batch_of(rollouts, rewards_B)] * s.updates

    def batch_of(self, rollouts: Sequence[RollOut], rewards_B: Tensor) -> Batch:
        """Groups of answers and their rewards -> a batch."""
        s = self.settings
        inputs_BT, targets_BT = sequences(rollouts)
        groups_GS = self.lowered(rollouts, rewards_B).view(-1, s.samples)
        advantages_GS = groups_GS - groups_GS.mean(dim=1, keepdim=True)
        spread_GS = groups_GS.std(dim=1, keepdim=True).expand_as(groups_GS)
        if s.scale == "group":
            advantages_GS = advantages_GS / (spread_GS + 1e-4)
        elif s.scale == "rloo":
            advantages_GS = advantages_GS * (s.samples / (s.samples - 1))
        old_BT = self.log_probs(self.model, inputs_BT, targets_BT)
        counts_BT = targets_BT != IGNORED
        advantages_BT = advantages_GS.reshape(-1, 1) * self.importance_weights(rollouts, old_BT, counts_BT)
        facts_BF = self.answer_facts(rollouts, rewards_B, old_BT, counts_BT)
        more = [(spread_GS > 1e-6).flatten().float(), spread_GS.flatten()]
        reference_BT = old_BT
        if self.measures_kl:
            reference_BT = self.log_probs(self.reference_model(), inputs_BT, targets_BT)
            more.append((old_BT - reference_BT).sum(dim=1))
        facts_BF = torch.cat([facts_BF, torch.stack(more, dim=1)], dim=1)
        return inputs_BT, targets_BT, old_BT, reference_BT, advantages_BT, facts_BF

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every token. Metrics: `FACTS`, the share of tokens that clipping leaves without a gradient, and
        the entropy a token, estimated from the tokens."""
        s = self.settings
        inputs_BT, targets_BT, old_BT, reference_BT, advantages_BT, facts_BF = batch
        log_probs_BT = token_log_probs(model, inputs_BT, targets_BT, s.temperature)
        counts_BT = targets_BT != IGNORED
        losses_BT, clipped_BT = clipped_losses(log_probs_BT - old_BT, advantages_BT, s.clip_low, s.clip_high)
        if s.beta:
            away_BT = reference_BT - log_probs_BT
            losses_BT = losses_BT + s.beta * (away_BT.exp() - away_BT - 1)  # Schulman's k3, never negative
        losses_BT = losses_BT.where(counts_BT, 0)
        lengths_B = counts_BT.sum(dim=1)
        n = int(lengths_B.sum())
        total, count = losses_BT.sum(), n
        if s.mean != "tokens":
            each = lengths_B if s.mean == "answers" else s.max_new_tokens
            total, count = (losses_BT.sum(dim=1) / each).sum(), len(inputs_BT)
        metrics = {
            **self.fact_metrics(facts_BF),
            "clip_fraction": ((clipped_BT & counts_BT).sum(), n),
            "entropy": (-log_probs_BT.detach().sum(), n),
        }
        return Loss(total, count, metrics)

    def causes(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        now, found = history[-1], dict(super().causes(history))
        if now["groups_with_spread"] < FEW_GROUPS:
            found["spread"] = (
                f"all rewards equal in {1 - now['groups_with_spread']:.0%} of groups: no gradient from them (mean "
                f"reward {now['reward']:.3g}); where nothing is solved yet, start from a model that is right more "
                "often when it samples (task.kind=sft first), give rewards for parts, or raise task.samples; where "
                "all is solved, stop"
            )
        return found


def clipped_losses(log_ratio_BT: Tensor, advantages: Tensor, low: float, high: float) -> tuple[Tensor, Tensor]:
    """(- min(ratio A, clip(ratio, 1 - low, 1 + high) A), which of them clipping leaves without a gradient), both
    (B, T); Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7."""
    ratio_BT = log_ratio_BT.exp()
    plain_BT, clipped_BT = ratio_BT * advantages, ratio_BT.clamp(1 - low, 1 + high) * advantages
    return -torch.minimum(plain_BT, clipped_BT), clipped_BT < plain_BT
