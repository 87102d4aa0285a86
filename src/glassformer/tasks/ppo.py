"""Proximal policy optimization: answers that a reward model likes, on a leash to the model that the run starts from.

    reward of token t       -beta (log p - log p_ref), and the score of the answer on its last token
    delta_t = reward_t + gamma V_{t+1} - V_t
    A_t = delta_t + gamma lambda A_{t+1}            return_t = A_t + V_t
    loss = - min(ratio A, clip(ratio, 1 - clip, 1 + clip) A)
           + value_weight / 2 max((V - return)^2, (V_clipped - return)^2)

Schulman et al. 2017, https://arxiv.org/abs/1707.06347, equation 7; advantages: Schulman et al. 2015,
https://arxiv.org/abs/1506.02438, equation 16; the penalty and its controller: Ziegler et al. 2019,
https://arxiv.org/abs/1909.08593, section 2.2; as the last step of an assistant: Ouyang et al. 2022,
https://arxiv.org/abs/2203.02155, section 3.5.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.data.batches import philox
from glassformer.generation.eval_mode import evaluating
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.losses import IGNORED, token_log_probs
from glassformer.tasks.rollouts import RollOut, RollOutSettings, RollOutTask, sequences
from glassformer.tasks.settings import TaskSettings

_SHUFFLE = 74  # stream of random numbers
KL_CLIP = 0.2  # most that one iteration may count as beside the target


class PPOSettings(RollOutSettings):
    """[task] of `ppo`."""

    minibatches: int = Field(default=4, ge=1)
    """updates for one pass over the answers of an iteration, each with training.batch_size of them"""
    epochs: int = Field(default=2, ge=1)
    """passes over the answers of an iteration"""
    clip: float = Field(default=0.2, gt=0, lt=1)
    value_clip: float = Field(default=0.2, gt=0)
    value_weight: float = Field(default=0.1, ge=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    gae_lambda: float = Field(default=0.95, ge=0, le=1)
    beta: float = Field(default=0.05, ge=0)
    """weight of the KL penalty, a token; with kl_target where it starts"""
    kl_target: float | None = Field(default=None, gt=0)
    """KL of an answer, in nats, that beta is moved towards; None: beta stays"""
    kl_horizon: float = Field(default=10_000, gt=0)
    """answers after which beta has followed"""
    whiten_rewards: bool = False
    """divide the scores of an iteration by their standard deviation"""
    missing_end: float = 0.0
    """subtracted from the score of an answer that does not end within max_new_tokens"""


class Critic(nn.Module):
    """The value of a state: what the rest of an answer is expected to bring. A copy of the model with a head of one
    number, zero at the start."""

    def __init__(self, model: Any):
        super().__init__()
        self.trunk = copy.deepcopy(model).requires_grad_(True)
        head = getattr(self.trunk, "head", None)
        if head is not None:  # it answers nothing; a tied table still reads
            self.trunk.head = nn.Identity()
        self.head = nn.Linear(model.config.n_embd, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, inputs_BT: Tensor) -> Tensor:
        """(B, T) ids -> (B, T) values, fp32 at least."""
        values_BT = self.head(self.trunk.hidden(inputs_BT)).squeeze(-1)
        return values_BT.to(torch.promote_types(values_BT.dtype, torch.float32))


class PPO(RollOutTask):
    """A batch is (inputs_BT, targets_BT, old log-probabilities_BT, advantages_BT, returns_BT, old values_BT, facts_B6):
    score, KL, ended, beta, explained variance and length of each answer."""

    Settings: ClassVar[type[TaskSettings]] = PPOSettings

    def begin(self, model: Any) -> None:
        super().begin(model)
        self.companion = Critic(model).to(next(model.parameters()).device)
        self.state = {"beta": self.settings.beta}

    def iteration(self, number: int) -> list[Batch]:
        """Answers to the prompts of an iteration, cut into minibatches, `epochs` times in another order."""
        s = self.settings
        rollouts, scores_B = self.roll_out(number, self.share * s.minibatches, 1)
        whole = self.batch_of(rollouts, scores_B)
        batches: list[Batch] = []
        for epoch in range(s.epochs):
            order = torch.from_numpy(
                philox(self.run.seed, _SHUFFLE, number * s.epochs + epoch).permutation(len(rollouts))
            )
            batches += [tuple(part[rows] for part in whole) for rows in order.split(self.share)]
        return batches

    @torch.no_grad()
    def batch_of(self, rollouts: Sequence[RollOut], scores_B: Tensor) -> Batch:
        """Answers and their scores -> one batch of all of them."""
        s, beta = self.settings, self.state["beta"]
        inputs_BT, targets_BT = sequences(rollouts)
        counts_BT = targets_BT != IGNORED
        old_BT = self.log_probs(self.model, inputs_BT, targets_BT)
        away_BT = old_BT - self.log_probs(self.reference_model(), inputs_BT, targets_BT)
        ended_B = torch.tensor([float(r.ended) for r in rollouts])
        used_B = scores_B - s.missing_end * (1 - ended_B)
        if s.whiten_rewards and len(used_B) > 1:
            used_B = used_B / (used_B.std() + 1e-8)
        rewards_BT = -beta * away_BT
        last_B = counts_BT.shape[1] - 1 - counts_BT.flip(1).float().argmax(dim=1)
        rewards_BT[torch.arange(len(rollouts)), last_B] += used_B
        with evaluating(self.companion):
            device = next(self.companion.parameters()).device
            values_BT = self.companion(inputs_BT.to(device)).cpu().where(counts_BT, 0)
        advantages_BT = generalized_advantages(rewards_BT, values_BT, counts_BT, s.gamma, s.gae_lambda)
        returns_BT = advantages_BT + values_BT
        taken_N, left_N = returns_BT[counts_BT], (returns_BT - values_BT)[counts_BT]
        explained = 1 - float(left_N.var() / (taken_N.var() + 1e-8)) if len(taken_N) > 1 else 0.0
        kl_B = away_BT.sum(dim=1)
        facts = [
            scores_B,
            kl_B,
            ended_B,
            torch.full_like(kl_B, beta),
            torch.full_like(kl_B, explained),
            counts_BT.sum(1),
        ]
        if s.kl_target is not None:
            error = float(kl_B.mean()) / s.kl_target - 1
            step = max(-KL_CLIP, min(KL_CLIP, error)) * len(rollouts) / s.kl_horizon
            self.state = {"beta": beta * (1 + step)}
        facts_BF = torch.stack([fact.float() for fact in facts], dim=1)
        return inputs_BT, targets_BT, old_BT, whitened(advantages_BT, counts_BT), returns_BT, values_BT, facts_BF

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every token: policy and critic. Metrics: reward, KL to the reference, length, share of answers
        that ended, beta, explained variance, clipped tokens, value loss, entropy."""
        s = self.settings
        inputs_BT, targets_BT, old_BT, advantages_BT, returns_BT, old_values_BT, facts_BF = batch
        counts_BT = targets_BT != IGNORED
        n, B = int(counts_BT.sum()), len(inputs_BT)
        log_probs_BT = token_log_probs(model, inputs_BT, targets_BT, s.temperature)
        ratio_BT = (log_probs_BT - old_BT).exp()
        clipped_BT = ratio_BT.clamp(1 - s.clip, 1 + s.clip)
        policy = -torch.minimum(ratio_BT * advantages_BT, clipped_BT * advantages_BT)[counts_BT].sum()
        values_BT = self.companion(inputs_BT)
        near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-s.value_clip, s.value_clip)
        squares_BT = torch.maximum((values_BT - returns_BT) ** 2, (near_BT - returns_BT) ** 2)
        value = squares_BT[counts_BT].sum() / 2
        names = ("reward", "kl", "ended", "beta", "explained_variance", "length")
        metrics: dict[str, tuple[Tensor, int | Tensor]] = {
            name: (total, B) for name, total in zip(names, facts_BF.sum(dim=0), strict=True)
        }
        metrics |= {
            "clip_fraction": (((ratio_BT != clipped_BT) & counts_BT).sum(), n),
            "value_loss": (value.detach(), n),
            "entropy": (-log_probs_BT.detach().sum(), n),
        }
        return Loss(policy + s.value_weight * value, n, metrics)


def generalized_advantages(
    rewards_BT: Tensor, values_BT: Tensor, counts_BT: Tensor, gamma: float, gae_lambda: float
) -> Tensor:
    """Advantages of every counted token, 0 elsewhere, (B, T). Counted tokens of a row stand side by side; the value
    after the last one is 0, since an answer ends there."""
    advantages_BT = torch.zeros_like(rewards_BT)
    following_B, next_value_B = torch.zeros(len(rewards_BT)), torch.zeros(len(rewards_BT))
    for t in reversed(range(rewards_BT.shape[1])):
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        following_B = (delta_B + gamma * gae_lambda * following_B).where(counts_BT[:, t], 0)
        next_value_B = values_BT[:, t].where(counts_BT[:, t], 0)
        advantages_BT[:, t] = following_B
    return advantages_BT


def whitened(x_BT: Tensor, counts_BT: Tensor) -> Tensor:
    """With mean 0 and standard deviation 1 over the places that count; 0 elsewhere."""
    x_N = x_BT[counts_BT]
    spread = x_N.std() if len(x_N) > 1 else torch.ones(())
    return ((x_BT - x_N.mean()) / (spread + 1e-8)).where(counts_BT, 0)
