"""Reward: which of two texts do people prefer? The model gives each text one number.

    chosen     A fine film.      ──encoder──►  r = 1.3
    rejected   I left early.     ──encoder──►  r = -0.4      P(chosen is preferred) = sigmoid(1.3 + 0.4) = 0.85

Bradley and Terry 1952; as the loss of a reward model: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, equation 1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.evaluation.rows import RowLosses
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.examples import ExampleTask, shortened
from glassformer.tasks.losses import check_not_empty, padded
from glassformer.tasks.sources import check_targets, encode_texts


class Reward(ExampleTask):
    """-log sigmoid(reward of the chosen text - reward of the rejected one), one target a pair.

    Examples have the chosen text as their source and the rejected one as their target. A batch is (chosen_BT,
    lengths_B, rejected_BT, lengths_B, targets_B); the target is always 0, the place of the chosen text. The accuracy
    of an evaluation is the share of pairs in which the chosen text gets the larger reward. Texts lose their end, where
    they are longer than the model reads.
    """

    asks: ClassVar[str] = "class"
    tuned: ClassVar[bool] = True
    placeholders: ClassVar[Mapping[str, Any] | None] = {**(ExampleTask.placeholders or {}), "n_classes": 1}
    tokenizer_side: ClassVar[str] = "both"

    @property
    def n_answers(self) -> int:
        """Two: a blind guess costs ln 2."""
        return 2

    def model_fields(self) -> dict[str, Any]:
        return {**super().model_fields(), "n_classes": 1}

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids of the chosen text, ids of the rejected one)."""
        examples = self.source.examples[split]
        check_targets(examples, "rejected text")
        rejected = encode_texts([example.target for example in examples], self.source.reader)
        rejected = self.source.cut(rejected, split, T, "rejected text")
        return [*zip(self.source.cut(self.source.encode(split), split, T), rejected, strict=True)]

    def collate(
        self, examples: Sequence[tuple[Sequence[int], Sequence[int]]], random: np.random.Generator | None = None
    ) -> Batch:
        """(chosen ids, rejected ids) pairs -> a batch.

        Raises:
            DataError: there is no pair, or a text is empty.
        """
        chosen, rejected = [ids for ids, _ in examples], [ids for _, ids in examples]
        check_not_empty(chosen, "text")
        check_not_empty(rejected, "text")
        targets_B = torch.zeros(len(examples), dtype=torch.int64)
        return *padded(chosen, self.pad_token), *padded(rejected, self.pad_token), targets_B

    def margins(self, model: Any, batch: Batch) -> Tensor:
        """Reward of the chosen text minus that of the rejected one, (B,), fp32 at least."""
        chosen_BT, chosen_lengths_B, rejected_BT, rejected_lengths_B, _ = batch
        margins_B = rewards_of(model, chosen_BT, chosen_lengths_B) - rewards_of(model, rejected_BT, rejected_lengths_B)
        return margins_B.to(torch.promote_types(margins_B.dtype, torch.float32))

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every pair; metrics: `margin`, and `accuracy` on the training batch."""
        margins_B = self.margins(model, batch)
        metrics = {"margin": (margins_B.sum(), len(margins_B)), "accuracy": ((margins_B > 0).sum(), len(margins_B))}
        return Loss(F.softplus(-margins_B).sum(), len(margins_B), metrics)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each pair, and whether the chosen text got the larger reward."""
        margins_B = self.margins(model, batch)
        return RowLosses(F.softplus(-margins_B).double(), torch.ones_like(batch[-1]), (margins_B > 0).long())

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """Both texts with their rewards."""
        rewards = rewards_of_ids(model, example, self.pad_token)
        texts = [shortened(self.tokenizer.decode(ids)) for ids in example]
        return f"chosen:   {rewards[0]:+.2f}  {texts[0]}\nrejected: {rewards[1]:+.2f}  {texts[1]}"


def rewards_of(model: Any, ids_BT: Tensor, lengths_B: Tensor) -> Tensor:
    """The reward of each row, (B,).

    Raises:
        UsageError: the model does not give one number a text.
    """
    rewards: Tensor = model.sequence_logits(model(ids_BT, lengths_B), lengths_B)
    if rewards.shape[1] != 1:
        raise UsageError(f"a reward is one number, and this model has {rewards.shape[1]} classes; train another")
    return rewards.squeeze(1)


@torch.inference_mode()
def rewards_of_ids(model: Any, rows: Sequence[Sequence[int]], pad_token: int = 0) -> list[float]:
    """The reward of each sequence of ids."""
    device = next(model.parameters()).device
    rewards: list[float] = rewards_of(model, *(part.to(device) for part in padded(rows, pad_token))).tolist()
    return rewards


def rewards(model: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> list[float]:
    """The reward of each text; one longer than the model reads loses its end.

    Raises:
        UsageError: the model does not give one number a text, or a text is empty.
    """
    rows = [tokenizer.encode(text)[: model.config.block_size] for text in texts]
    if (number := next((i for i, ids in enumerate(rows, 1) if not ids), None)) is not None:
        raise UsageError(f"text {number} is empty; give it one word or leave it out")
    return rewards_of_ids(model.eval(), rows)
