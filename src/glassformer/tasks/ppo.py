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

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.data.batches import philox
from glassformer.generation.eval_mode import evaluating
from glassformer.layers.lora import shared_copy
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.grpo import clipped_losses
from glassformer.tasks.losses import IGNORED, token_log_probs
from glassformer.tasks.rollout_task import READ_ROWS, RollOutSettings, RollOutTask
from glassformer.tasks.rollouts import RollOut, sequences
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
    value_clip: float | None = Field(default=0.2, gt=0)
    """how far an update may move a value from what it was at the roll-out; None: as far as it likes"""
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
    whiten_advantages: bool = True
    """give the advantages of an iteration mean 0 and standard deviation 1"""


class Critic(nn.Module):
    """The value of a state: what the rest of an answer is expected to bring. A copy of the model with a head of one
    number, zero at the start. What is frozen is shared with the model: with LoRA all but adapters and head."""

    def __init__(self, model: Any):
        super().__init__()
        self.trunk = shared_copy(model, trained=False)
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
    """A batch is (inputs_BT, targets_BT, old log-probabilities_BT, advantages_BT times importance weights, returns_BT,
    old values_BT, facts_BF)."""

    Settings: ClassVar[type[TaskSettings]] = PPOSettings
    FACTS: ClassVar[tuple[str, ...]] = (*RollOutTask.FACTS, "kl", "beta", "explained_variance")

    @property
    def uses(self) -> int:
        return int(self.settings.epochs)

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
        used_B = self.lowered(rollouts, scores_B)
        if s.whiten_rewards:
            used_B = (used_B / (self.moments(used_B)[1] + 1e-8)).float()
        rewards_BT = -beta * away_BT
        last_B = counts_BT.shape[1] - 1 - counts_BT.flip(1).float().argmax(dim=1)
        rewards_BT[torch.arange(len(rollouts)), last_B] += used_B
        values_BT = self.values(inputs_BT).where(counts_BT, 0)
        advantages_BT = generalized_advantages(rewards_BT, values_BT, counts_BT, s.gamma, s.gae_lambda)
        returns_BT = advantages_BT + values_BT
        taken, left = (self.moments(x_BT[counts_BT])[1] ** 2 for x_BT in (returns_BT, advantages_BT))
        kl_B = away_BT.sum(dim=1)
        own = [kl_B, torch.full_like(kl_B, beta), torch.full_like(kl_B, float(1 - left / (taken + 1e-8)))]
        facts_BF = torch.cat([self.answer_facts(rollouts, scores_B, old_BT, counts_BT), torch.stack(own, dim=1)], dim=1)
        if s.kl_target is not None:
            error = float(self.moments(kl_B)[0]) / s.kl_target - 1
            n = len(rollouts) * self.place[1]
            self.state = {"beta": beta * (1 + max(-KL_CLIP, min(KL_CLIP, error)) * n / s.kl_horizon)}
        if s.whiten_advantages:
            mean, spread = self.moments(advantages_BT[counts_BT])
            advantages_BT = ((advantages_BT - mean) / (spread + 1e-8)).float().where(counts_BT, 0)
        advantages_BT = advantages_BT * self.importance_weights(rollouts, old_BT, counts_BT)
        return inputs_BT, targets_BT, old_BT, advantages_BT, returns_BT, values_BT, facts_BF

    def values(self, inputs_BT: Tensor) -> Tensor:
        """The critic's values in eval mode and in the precision of the training, (B, T), on the CPU."""
        device = next(self.companion.parameters()).device
        half = torch.autocast(device.type, torch.bfloat16, enabled=self.run.precision == "bf16")
        with evaluating(self.companion), half:
            return torch.cat([self.companion(rows.to(device)) for rows in inputs_BT.split(READ_ROWS)]).cpu()

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every token: policy and critic. Metrics: `FACTS`, the share of tokens that clipping leaves
        without a gradient, value loss, and the entropy a token, estimated from the tokens."""
        s = self.settings
        inputs_BT, targets_BT, old_BT, advantages_BT, returns_BT, old_values_BT, facts_BF = batch
        counts_BT = targets_BT != IGNORED
        n = int(counts_BT.sum())
        log_probs_BT = token_log_probs(model, inputs_BT, targets_BT, s.temperature)
        policy_BT, clipped_BT = clipped_losses(log_probs_BT - old_BT, advantages_BT, s.clip, s.clip)
        values_BT = self.companion(inputs_BT)
        squares_BT = (values_BT - returns_BT) ** 2
        if s.value_clip is not None:
            near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-s.value_clip, s.value_clip)
            squares_BT = torch.maximum(squares_BT, (near_BT - returns_BT) ** 2)
        value = squares_BT[counts_BT].sum() / 2
        metrics = {
            **self.fact_metrics(facts_BF),
            "clip_fraction": ((clipped_BT & counts_BT).sum(), n),
            "value_loss": (value.detach(), n),
            "entropy": (-log_probs_BT.detach().sum(), n),
        }
        return Loss(policy_BT[counts_BT].sum() + s.value_weight * value, n, metrics)

    def causes(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        found = dict(super().causes(history))
        if len(history) > 3 and all(row["explained_variance"] < 0 for row in history[-3:]):
            found["critic"] = (
                f"the critic is worse than a constant (explained variance {history[-1]['explained_variance']:.2f}): "
                "advantages are mostly noise; raise task.value_weight or task.epochs, or whiten the rewards "
                "(task.whiten_rewards=true)"
            )
        return found


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
