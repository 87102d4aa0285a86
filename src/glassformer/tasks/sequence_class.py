"""Sequence class: one question a sequence, such as whether a review is a good one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from glassformer.errors import DataError
from glassformer.tasks.cross_entropy import IGNORED
from glassformer.tasks.objective import (
    Batch,
    ObjectiveSettings,
    RowLosses,
    check_not_empty,
    number_of,
    padded,
    row_losses,
    summed_cross_entropy,
)


class SequenceClass:
    """Cross-entropy over classes, one target an example: how BERT is fine-tuned to sentences (Devlin et al. 2018,
    https://arxiv.org/abs/1810.04805, section 4.1). How the vectors of a sequence become one is the model's affair
    (`sequence_logits`).

    A batch is (inputs_BT, lengths_B, labels_B).

    Args:
        n_classes: labels are 0 ... n_classes - 1.
        pad_token: what fills up shorter rows. Nobody looks at it.
    """

    asks: ClassVar[str] = "class"
    data: ClassVar[str] = "labelled"
    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    by_chance: ClassVar[bool] = False
    alarm: ClassVar[float | None] = 1.0  # nat a target

    def __init__(self, *, n_classes: int, pad_token: int = 0):
        self.n_classes, self.pad_token = n_classes, pad_token

    def collate(
        self, examples: Sequence[tuple[Sequence[int], int]], random: np.random.Generator | None = None
    ) -> Batch:
        """(ids, label) pairs -> a batch.

        Raises:
            DataError: there is no example, one has no token, or a label is no class.
        """
        texts, labels = [ids for ids, _ in examples], [label for _, label in examples]
        check_not_empty(texts, "text")
        check_classes(labels, self.n_classes)
        return *padded(texts, self.pad_token), torch.tensor(labels, dtype=torch.int64)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of losses in nats, number of examples, further metrics); see `NextToken.loss`."""
        return summed_cross_entropy(_logits(model, batch), batch[-1]), number_of(batch[-1]), {}

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What each example cost, and whether the likeliest class was the right one."""
        return row_losses(_logits(model, batch), batch[-1])

    def count(self, batch: Batch) -> int:
        """The number of examples."""
        return int((batch[-1] != IGNORED).sum())


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    inputs_BT, lengths_B, _ = batch
    return model.sequence_logits(model(inputs_BT, lengths_B), lengths_B)  # type: ignore[operator]  # (B, classes)


def check_classes(labels: Sequence[int], n_classes: int) -> None:
    """Raise a `DataError` when a label is no class."""
    for label in labels:
        if not 0 <= label < n_classes:
            raise DataError(
                f"label {label} is not one of the {n_classes} classes 0 ... {n_classes - 1}; check n_classes"
            )
