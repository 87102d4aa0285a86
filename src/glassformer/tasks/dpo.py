"""Direct preference optimization: raise the chosen answer above the rejected one, measured from where the model began.

    r(y) = beta (log p(y | x) - log p_ref(y | x))          loss = -log sigmoid(r(chosen) - r(rejected))

Rafailov et al. 2023, https://arxiv.org/abs/2305.18290, equation 7. The reference is the model that the run starts
from; its log-probabilities of all answers are computed once, before the first step, so only one model is in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from glassformer.data.chats import ChatRow
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Figure
from glassformer.hub import load_model, model_folder_of
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.chats import ChatSettings, ChatTask, chat_sequences, collate_tokens, inputs_and_targets
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.rollouts import answers_to_look_at
from glassformer.tasks.settings import TaskSettings

REFERENCE_ROWS = 8
"""Answers that the reference reads together."""


class DPOSettings(ChatSettings):
    """[task] of `dpo`."""

    beta: float = Field(default=0.1, gt=0)
    """how strongly the model is held to the reference: the larger, the closer"""
    loss: Literal["sigmoid", "ipo"] = "sigmoid"
    """sigmoid: DPO. ipo: (margin / beta - 1 / (2 beta))^2 (Azar et al. 2023, https://arxiv.org/abs/2310.12036)"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """probability that a preference is the wrong way round (cDPO, Mitchell 2023); of sigmoid"""


class Pair(NamedTuple):
    """Inputs and targets of the chosen and of the rejected answer, and the reference's log-probabilities of both."""

    chosen: tuple[np.ndarray, np.ndarray]
    rejected: tuple[np.ndarray, np.ndarray]
    reference: tuple[float, float]


class DPO(ChatTask):
    """A batch is (chosen inputs_BT, targets_BT, rejected inputs_BT, targets_BT, reference_B2, zeros_B)."""

    Settings: ClassVar[type[TaskSettings]] = DPOSettings
    leashed: ClassVar[bool] = True
    form: ClassVar[str] = "chosen and rejected, after a prompt"
    n_row_answers: ClassVar[int | None] = 2
    reference: Any = None
    """the model to be held to; None: the one that the run starts from"""

    @property
    def n_answers(self) -> int:
        """Two: a model that is still its reference has loss ln 2."""
        return 2

    def encode(self, split: str, T: int) -> list[Any]:
        """A `Pair` of every row."""
        pairs: list[Any] = []
        cut = 0
        for row in self.source.examples[split]:
            sides = [self._side(row, number, T) for number in range(2)]
            cut += any(cut_short for _, cut_short in sides)
            if all(side is not None for side, _ in sides):
                pairs.append((sides[0][0], sides[1][0]))
        rows = len(self.source.examples[split])
        self.source.notice(cut, "pair", split, f"cut to {T} tokens")
        self.source.notice(rows - len(pairs), "pair", split, f"left out: an answer begins after {T} tokens")
        if not pairs:
            raise DataError(f"no answer begins within {T} tokens; use a larger training.sequence_length")
        known = self._reference_log_probs([side for pair in pairs for side in pair])
        return [Pair(pair[0], pair[1], (known[2 * i], known[2 * i + 1])) for i, pair in enumerate(pairs)]

    def _side(self, row: ChatRow, number: int, T: int) -> tuple[Any, bool]:
        """Inputs and targets of one answer (None: nothing is left of it), and whether it was cut."""
        sequence = chat_sequences(self.tokenizer, row, row.answers[number])[-1]
        return inputs_and_targets(sequence, T), len(sequence.ids) > T + 1

    @torch.no_grad()
    def _reference_log_probs(self, sides: Sequence[Any]) -> list[float]:
        """The reference's log-probability of each answer, in order."""
        if self.reference is None:
            if self.run.start_from is None:
                raise UsageError("DPO starts from a model, which is its reference; set training.start_from=MODEL")
            self.reference = load_model(model_folder_of(self.run.start_from))
        model = self.reference.eval()
        found = np.zeros(len(sides))
        order = np.argsort([len(inputs) for inputs, _ in sides], kind="stable")
        for start in range(0, len(order), REFERENCE_ROWS):
            chosen = order[start : start + REFERENCE_ROWS]
            inputs_BT, targets_BT = collate_tokens([sides[i] for i in chosen])
            found[chosen] = token_log_probs(model, inputs_BT, targets_BT).sum(dim=1).numpy()
        return [float(value) for value in found]

    def collate(self, examples: Sequence[Pair], random: Any = None) -> Batch:
        chosen = collate_tokens([pair.chosen for pair in examples])
        rejected = collate_tokens([pair.rejected for pair in examples])
        reference_B2 = torch.tensor([pair.reference for pair in examples], dtype=torch.float32)
        return *chosen, *rejected, reference_B2, torch.zeros(len(examples), dtype=torch.int64)

    def rewards(self, model: Any, batch: Batch) -> Tensor:
        """beta (log p - log p_ref) of the chosen and of the rejected answer, (B, 2)."""
        chosen_BT, chosen_targets_BT, rejected_BT, rejected_targets_BT, reference_B2, _ = batch
        log_probs_B2 = torch.stack(
            [
                token_log_probs(model, chosen_BT, chosen_targets_BT).sum(dim=1),
                token_log_probs(model, rejected_BT, rejected_targets_BT).sum(dim=1),
            ],
            dim=1,
        )
        return self.settings.beta * (log_probs_B2 - reference_B2)

    def losses(self, rewards_B2: Tensor) -> Tensor:
        """The loss of each pair, (B,)."""
        margins_B = rewards_B2[:, 0] - rewards_B2[:, 1]
        s = self.settings
        if s.loss == "ipo":
            return (margins_B / s.beta - 1 / (2 * s.beta)) ** 2
        return (1 - s.label_smoothing) * F.softplus(-margins_B) + s.label_smoothing * F.softplus(margins_B)

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every pair. Metrics: margin of the rewards, accuracy, reward of either answer."""
        rewards_B2 = self.rewards(model, batch)
        margins_B, B = rewards_B2[:, 0] - rewards_B2[:, 1], len(rewards_B2)
        metrics = {
            "margin": (margins_B.sum(), B),
            "accuracy": ((margins_B > 0).sum(), B),
            "reward_chosen": (rewards_B2[:, 0].sum(), B),
            "reward_rejected": (rewards_B2[:, 1].sum(), B),
        }
        return Loss(self.losses(rewards_B2).sum(), B, metrics)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each pair, and whether the chosen answer has the larger reward."""
        rewards_B2 = self.rewards(model, batch)
        right_B = (rewards_B2[:, 0] > rewards_B2[:, 1]).long()
        return RowLosses(self.losses(rewards_B2).double(), torch.ones_like(right_B), right_B)

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Answers to held-out prompts."""
        return answers_to_look_at(self, model)
