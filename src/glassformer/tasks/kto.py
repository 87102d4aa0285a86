"""Kahneman-Tversky optimization: answers that people liked or did not, one at a time; no pairs are needed.

    r = log p(y | x) - log p_ref(y | x)          z = max(0, mean of r over answers to other prompts)   (no gradient)

    loss = w+ (1 - sigmoid(beta (r - z)))   of a desirable answer
           w- (1 - sigmoid(beta (z - r)))   of an undesirable one

Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306, equations 7 and 8. z estimates the KL to the reference: each
prompt with the answer of the next row that has another prompt, over the rows that are computed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.batches import IGNORED
from glassformer.data.chats import ChatRow, ChatRows, Turns
from glassformer.errors import DataError
from glassformer.evaluation.rows import RowLosses
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.chats import collate_tokens
from glassformer.tasks.examples import shortened
from glassformer.tasks.losses import token_log_probs
from glassformer.tasks.reference import ReferenceSettings, ReferenceTask, Side
from glassformer.tasks.settings import TaskSettings

FAIR = (1.0, 4 / 3)
"""Where the paper wants (w+ desirable) / (w- undesirable), section 4.2."""


class KTOSettings(ReferenceSettings):
    """[task] of `kto`."""

    beta: float = Field(default=0.1, gt=0)
    """how strongly the model is held to the reference: the larger, the closer"""
    desirable_weight: float = Field(default=1.0, gt=0)
    undesirable_weight: float = Field(default=1.0, gt=0)
    """weights of the losses; raise that of the rarer kind until weight times number is as large for desirable answers
    as for undesirable ones, or up to 4/3 times"""


class Thumb(NamedTuple):
    """An answer, the answer of another row to the same prompt, whether it is desirable, and the reference's
    log-probabilities of both."""

    answer: Side
    other: Side
    liked: bool
    reference: tuple[float, float] | None = None


class KTO(ReferenceTask):
    """A batch is (inputs_BT, targets_BT, other inputs_BT, other targets_BT, reference_B2, liked_B)."""

    Settings: ClassVar[type[TaskSettings]] = KTOSettings
    form: ClassVar[str] = "one answer with label true or false, or chosen and rejected"
    n_row_answers: ClassVar[int | None] = None
    extra_passes = 3  # the other answer, and the reference's of both

    @classmethod
    def check_rows(cls, rows: ChatRows) -> None:
        for row in (row for split in rows.values() for row in split):
            if not row.answers or (len(row.answers) == 1 and row.label is None):
                found = "one answer and no label" if row.answers else "a prompt alone"
                raise DataError(f"{row.place}: a row has {found}, and this task needs {cls.form}")

    @property
    def n_answers(self) -> int:
        """Two: desirable or not."""
        return 2

    def encode(self, split: str, T: int) -> list[Any]:
        """A `Thumb` of every answer.

        Raises:
            DataError: all rows have one prompt, or all answers to learn from are of one kind.
        """
        thumbs, train = (
            [thumb for row in self.source.examples[name] for thumb in thumbs_of(row)] for name in (split, "train")
        )
        liked = sum(good for _, _, good in thumbs)
        if split == "train" and liked in (0, len(thumbs)):
            kind, lacking = ("desirable", "undesirable") if liked else ("undesirable", "desirable")
            raise DataError(f"all answers are {kind}; add rows whose label is {str(lacking == 'desirable').lower()}")
        rows = []
        for i, (row, answer, good) in enumerate(thumbs):
            other = next((a for r, a, _ in (*thumbs[i + 1 :], *thumbs[:i], *train) if differs(r, row)), None)
            if other is None:
                raise DataError(f"{row.place}: no row has another prompt, and KTO needs answers to other prompts")
            rows.append(([self.side(row, answer, T), self.side(row, other, T)], good))
        kept = self.kept(rows, split, T)
        if split == "train":
            self._check_weights(liked, len(thumbs) - liked)
        return [Thumb(one, other, good) for (one, other), good in kept]

    def _check_weights(self, liked: int, disliked: int) -> None:
        s = self.settings
        ratio = s.desirable_weight * liked / (s.undesirable_weight * disliked)
        if not FAIR[0] * 0.99 <= ratio <= FAIR[1] * 1.01:
            key, value = ("desirable_weight", 1 / ratio) if ratio < 1 else ("undesirable_weight", ratio)
            self.source.notices.append(
                f"{liked:,} desirable and {disliked:,} undesirable answers weigh {ratio:.2f} to 1, and 1 to 1.33 works "
                f"best; set task.{key}={value * getattr(s, key):.2f}"
            )

    def collate(self, examples: Sequence[Thumb], random: Any = None) -> Batch:
        answers = collate_tokens([thumb.answer for thumb in examples])
        others = collate_tokens([thumb.other for thumb in examples])
        reference_B2 = torch.tensor([thumb.reference for thumb in examples], dtype=torch.float32)
        return *answers, *others, reference_B2, torch.tensor([int(thumb.liked) for thumb in examples])

    def log_ratios(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """r of each answer (B,), and z (0-dim)."""
        inputs_BT, targets_BT, other_BT, other_targets_BT, reference_B2, _ = batch
        ratios_B = token_log_probs(model, inputs_BT, targets_BT).sum(dim=1) - reference_B2[:, 0]
        with torch.no_grad():
            others_B = token_log_probs(model, other_BT, other_targets_BT).sum(dim=1) - reference_B2[:, 1]
        return ratios_B, others_B.mean().clamp(min=0)

    def losses(self, ratios_B: Tensor, z: Tensor, liked_B: Tensor) -> Tensor:
        """The loss of each answer, (B,)."""
        s = self.settings
        away_B = s.beta * (ratios_B - z)
        signed_B = torch.where(liked_B.bool(), away_B, -away_B)
        weights_B = torch.where(liked_B.bool(), s.desirable_weight, s.undesirable_weight)
        return weights_B * torch.sigmoid(-signed_B)

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every answer. Metrics: z (`kl`), and beta r of desirable and of undesirable answers."""
        ratios_B, z = self.log_ratios(model, batch)
        liked_B, B = batch[-1], len(ratios_B)
        rewards_B = self.settings.beta * ratios_B.detach()
        n = liked_B.sum()
        metrics: dict[str, Any] = {
            "kl": (z * B, B),
            "reward_desirable": ((rewards_B * liked_B).sum(), n),
            "reward_undesirable": ((rewards_B * (1 - liked_B)).sum(), B - n),
        }
        return Loss(self.losses(ratios_B, z, liked_B).sum(), B, metrics)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each answer, and whether its r is on the right side of z."""
        ratios_B, z = self.log_ratios(model, batch)
        right_B = ((ratios_B > z) == batch[-1].bool()).long()
        return RowLosses(self.losses(ratios_B, z, batch[-1]).double(), torch.ones_like(right_B), right_B)

    def sample_text(self, model: Any, example: Thumb, number: int) -> str:
        """An answer, what people thought of it, and beta r."""
        device = next(model.parameters()).device
        batch = tuple(part.to(device) for part in self.collate([example]))
        reward = self.settings.beta * self.log_ratios(model, batch)[0].item()
        targets = example.answer[1]
        kind = "desirable" if example.liked else "undesirable"
        return f"{kind}: {reward:+.3f}  {shortened(self.tokenizer.decode(targets[targets != IGNORED]))}"


def thumbs_of(row: ChatRow) -> list[tuple[ChatRow, Turns, bool]]:
    """(row, answer, whether it is desirable): the one with its label, or chosen and rejected."""
    if len(row.answers) == 1:
        return [(row, row.answers[0], bool(row.label))]
    return [(row, answer, answer is row.answers[0]) for answer in row.answers]


def differs(one: ChatRow, other: ChatRow) -> bool:
    """Whether the answer of one row may stand after the other's prompt, which is another."""
    return one.is_chat == other.is_chat and one.prompt != other.prompt
