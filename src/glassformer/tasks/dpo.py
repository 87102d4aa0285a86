"""Direct preference optimization: raise the chosen answer above the rejected one, measured from where the model began.

    r(y) = beta (log p(y | x) - log p_ref(y | x))          m = r(chosen) - r(rejected)

    sigmoid   -log sigmoid(m)                            DPO, Rafailov et al. 2023, arxiv.org/abs/2305.18290, equation 7
    ipo       (m / beta - 1 / (2 beta))^2                IPO, Azar et al. 2023, arxiv.org/abs/2310.12036, equation 17
    simpo     -log sigmoid(m - gamma)                    SimPO, Meng et al. 2024, arxiv.org/abs/2405.14734, equation 6;
              with r(y) = beta log p(y | x) / |y|        no reference

The reference is the model that the run starts from, or `task.reference`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from glassformer.data.batches import IGNORED
from glassformer.errors import UsageError
from glassformer.evaluation.rows import RowLosses
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.chats import collate_tokens
from glassformer.tasks.examples import shortened
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.reference import ReferenceSettings, ReferenceTask, Side
from glassformer.tasks.settings import TaskSettings


class DPOSettings(ReferenceSettings):
    """[task] of `dpo`."""

    beta: float = Field(default=0.1, gt=0)
    """how strongly the model is held to the reference: the larger, the closer; 2 to 10 with simpo"""
    loss: Literal["sigmoid", "ipo", "simpo"] = "sigmoid"
    """of the table above"""
    gamma: float | None = Field(default=None, ge=0)
    """of simpo: the margin to be reached; None: 0.5 beta"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=0.5)
    """probability that a preference is the wrong way round (cDPO, Mitchell 2023); of sigmoid and simpo"""

    @model_validator(mode="after")
    def _fitting(self) -> DPOSettings:
        if self.gamma is not None and self.loss != "simpo":
            raise UsageError(f"task.gamma is of task.loss=simpo, and not of {self.loss}; leave it out")
        if self.label_smoothing and self.loss == "ipo":
            raise UsageError("task.label_smoothing is of task.loss=sigmoid and simpo, and not of ipo; leave it out")
        if self.reference is not None and self.loss == "simpo":
            raise UsageError("task.loss=simpo has no reference; leave out task.reference")
        return self


def sigmoid_loss(margins_B: Tensor, s: Any) -> Tensor:
    """-(1 - e) log sigmoid(m) - e log sigmoid(-m), where e is the label smoothing."""
    return (1 - s.label_smoothing) * F.softplus(-margins_B) + s.label_smoothing * F.softplus(margins_B)


def ipo_loss(margins_B: Tensor, s: Any) -> Tensor:
    """A square: it stops at a margin, where the sigmoid goes on."""
    return (margins_B / s.beta - 1 / (2 * s.beta)) ** 2


def simpo_loss(margins_B: Tensor, s: Any) -> Tensor:
    """The sigmoid's, of what exceeds gamma."""
    return sigmoid_loss(margins_B - (0.5 * s.beta if s.gamma is None else s.gamma), s)


LOSSES: dict[str, Callable[[Tensor, Any], Tensor]] = {"sigmoid": sigmoid_loss, "ipo": ipo_loss, "simpo": simpo_loss}
"""The loss of each pair from its margin, (B,) -> (B,)."""


class Pair(NamedTuple):
    """The chosen and the rejected answer, and the reference's log-probabilities of both."""

    chosen: Side
    rejected: Side
    reference: tuple[float, float] | None = None


class DPO(ReferenceTask):
    """A batch is (chosen inputs_BT, targets_BT, rejected inputs_BT, targets_BT, reference_B2, zeros_B)."""

    Settings: ClassVar[type[TaskSettings]] = DPOSettings
    form: ClassVar[str] = "chosen and rejected, after a prompt"
    n_row_answers: ClassVar[int | None] = 2

    def __init__(self, **settings: Any):
        super().__init__(**settings)
        self.asks_reference = self.settings.loss != "simpo"

    @property
    def n_answers(self) -> int:
        """Two: a model that is still its reference has loss ln 2."""
        return 2

    def encode(self, split: str, T: int) -> list[Any]:
        """A `Pair` of every row."""
        rows = [([self.side(row, answer, T) for answer in row.answers], None) for row in self.source.examples[split]]
        return [Pair(*sides) for sides, _ in self.kept(rows, split, T)]

    def collate(self, examples: Sequence[Pair], random: Any = None) -> Batch:
        chosen = collate_tokens([pair.chosen for pair in examples])
        rejected = collate_tokens([pair.rejected for pair in examples])
        known = [pair.reference if self.asks_reference else (0, 0) for pair in examples]
        reference_B2 = torch.tensor(known, dtype=torch.float32)
        return *chosen, *rejected, reference_B2, torch.zeros(len(examples), dtype=torch.int64)

    def log_ratios(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """log p - log p_ref of the chosen and of the rejected answer (simpo: log p), and their tokens, both (B, 2)."""
        chosen_BT, chosen_targets_BT, rejected_BT, rejected_targets_BT, reference_B2, _ = batch
        sides = ((chosen_BT, chosen_targets_BT), (rejected_BT, rejected_targets_BT))
        log_probs_B2 = torch.stack([token_log_probs(model, *side).sum(dim=1) for side in sides], dim=1)
        lengths_B2 = torch.stack([(targets != IGNORED).sum(dim=1) for _, targets in sides], dim=1)
        return log_probs_B2 - reference_B2, lengths_B2

    def rewards(self, ratios_B2: Tensor, lengths_B2: Tensor) -> Tensor:
        """r of the chosen and of the rejected answer, (B, 2)."""
        return self.settings.beta * (ratios_B2 / lengths_B2 if self.settings.loss == "simpo" else ratios_B2)

    def losses(self, rewards_B2: Tensor) -> Tensor:
        """The loss of each pair, (B,)."""
        return LOSSES[self.settings.loss](rewards_B2[:, 0] - rewards_B2[:, 1], self.settings)

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every pair. Metrics: margin, accuracy, reward of either answer, and log p - log p_ref a token of
        either: how far the model has gone from the reference (of the chosen ones it often falls too)."""
        ratios_B2, lengths_B2 = self.log_ratios(model, batch)
        rewards_B2, B = self.rewards(ratios_B2, lengths_B2), len(ratios_B2)
        margins_B = rewards_B2[:, 0] - rewards_B2[:, 1]
        metrics: dict[str, Any] = {"margin": (margins_B.sum(), B), "accuracy": ((margins_B > 0).sum(), B)}
        for side, name in enumerate(("chosen", "rejected")):
            metrics[f"reward_{name}"] = (rewards_B2[:, side].sum(), B)
            metrics[f"log_ratio_{name}"] = (ratios_B2[:, side].sum(), lengths_B2[:, side].sum())
        if self.settings.loss == "simpo":  # without a reference it is the mean log p
            for name in ("chosen", "rejected"):
                metrics[f"log_prob_{name}"] = metrics.pop(f"log_ratio_{name}")
        return Loss(self.losses(rewards_B2).sum(), B, metrics)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each pair, and whether the chosen answer has the larger reward."""
        rewards_B2 = self.rewards(*self.log_ratios(model, batch))
        right_B = (rewards_B2[:, 0] > rewards_B2[:, 1]).long()
        return RowLosses(self.losses(rewards_B2).double(), torch.ones_like(right_B), right_B)

    def sample_text(self, model: Any, example: Pair, number: int) -> str:
        """Both answers with their rewards."""
        device = next(model.parameters()).device
        batch = tuple(part.to(device) for part in self.collate([example]))
        chosen, rejected = self.rewards(*self.log_ratios(model, batch))[0].tolist()
        texts = [shortened(self.tokenizer.decode(side[1][side[1] != IGNORED])) for side in example[:2]]
        return f"chosen:   {chosen:+.3f}  {texts[0]}\nrejected: {rejected:+.3f}  {texts[1]}"
