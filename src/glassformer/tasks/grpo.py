"""Group-relative policy optimization: an answer is as good as its reward is above that of the other answers to its
prompt. No critic.

    A_i = (r_i - mean of the group) / (standard deviation of the group)
    loss of a token = - min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) + beta KL(model || reference)

Shao et al. 2024, https://arxiv.org/abs/2402.03300, equations 3 and 4. The corrections of Dr. GRPO (Liu et al. 2025,
https://arxiv.org/abs/2503.20783: no division by the length, none by the standard deviation) and of DAPO (Yu et al.
2025, https://arxiv.org/abs/2503.14476: clip higher, one mean over all tokens) are settings.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.losses import IGNORED, token_log_probs
from glassformer.tasks.rollouts import RollOut, RollOutSettings, RollOutTask, sequences
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
    scale: Literal["group", "none"] = "group"
    """group: divide by the group's standard deviation. none: Dr. GRPO"""
    mean: Literal["tokens", "answers", "constant"] = "tokens"
    """tokens: over all tokens of the step (DAPO). answers: over the tokens of an answer, then over answers (the
    paper's; long answers count less a token). constant: divide by max_new_tokens (Dr. GRPO)"""


class GRPO(RollOutTask):
    """A batch is (inputs_BT, targets_BT, old log-probabilities_BT, reference log-probabilities_BT, advantages_B,
    rewards_B, has spread_B, ended_B)."""

    Settings: ClassVar[type[TaskSettings]] = GRPOSettings

    def iteration(self, number: int) -> list[Batch]:
        """Answers to the prompts of an iteration as one batch, `updates` times."""
        s = self.settings
        if self.share % s.samples:
            raise UsageError(
                f"training.batch_size={self.share} holds no whole groups of task.samples={s.samples} answers; "
                f"use a multiple of {s.samples}"
            )
        rollouts, rewards_B = self.roll_out(number, self.share // s.samples, s.samples)
        return [self.batch_of(rollouts, rewards_B)] * s.updates

    def batch_of(self, rollouts: Sequence[RollOut], rewards_B: Tensor) -> Batch:
        """Groups of answers and their rewards -> a batch."""
        s = self.settings
        inputs_BT, targets_BT = sequences(rollouts)
        groups_GS = rewards_B.view(-1, s.samples)
        advantages_GS = groups_GS - groups_GS.mean(dim=1, keepdim=True)
        spread_GS = groups_GS.std(dim=1, keepdim=True).expand_as(groups_GS)
        if s.scale == "group":
            advantages_GS = advantages_GS / (spread_GS + 1e-4)
        old_BT = self.log_probs(self.model, inputs_BT, targets_BT)
        reference_BT = self.log_probs(self.reference_model(), inputs_BT, targets_BT) if s.beta else old_BT
        ended_B = torch.tensor([r.ended for r in rollouts], dtype=torch.float32)
        has_spread_B = (spread_GS > 1e-6).flatten().float()
        return (
            inputs_BT,
            targets_BT,
            old_BT,
            reference_BT,
            advantages_GS.flatten(),
            rewards_B,
            has_spread_B,
            ended_B,
        )

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every token. Metrics: reward, length, share of answers that ended, of groups with spread, of
        clipped tokens; KL to the reference and entropy, both estimated from the tokens."""
        s = self.settings
        inputs_BT, targets_BT, old_BT, reference_BT, advantages_B, rewards_B, has_spread_B, ended_B = batch
        log_probs_BT = token_log_probs(model, inputs_BT, targets_BT, s.temperature)
        counts_BT = targets_BT != IGNORED
        ratio_BT = (log_probs_BT - old_BT).exp()
        clipped_BT = ratio_BT.clamp(1 - s.clip_low, 1 + s.clip_high)
        advantages_B1 = advantages_B[:, None]
        losses_BT = -torch.minimum(ratio_BT * advantages_B1, clipped_BT * advantages_B1)
        away_BT = reference_BT - log_probs_BT
        kl_BT = away_BT.exp() - away_BT - 1  # Schulman's k3, never negative
        if s.beta:
            losses_BT = losses_BT + s.beta * kl_BT
        losses_BT = losses_BT.where(counts_BT, 0)
        B, lengths_B = len(inputs_BT), counts_BT.sum(dim=1)
        total, count = losses_BT.sum(), int(lengths_B.sum())
        if s.mean != "tokens":
            each = lengths_B if s.mean == "answers" else s.max_new_tokens
            total, count = (losses_BT.sum(dim=1) / each).sum(), B
        n = int(lengths_B.sum())
        metrics = {
            "reward": (rewards_B.sum(), B),
            "length": (lengths_B.sum(), B),
            "ended": (ended_B.sum(), B),
            "groups_with_spread": (has_spread_B.sum(), B),
            "clip_fraction": (((ratio_BT != clipped_BT) & counts_BT).sum(), n),
            "kl": (kl_BT.where(counts_BT, 0).detach().sum(), n),
            "entropy": (-log_probs_BT.detach().sum(), n),
        }
        return Loss(total, count, metrics)
