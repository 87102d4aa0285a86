"""Token class: one question a token, such as which part of speech it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
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
from glassformer.tasks.sequence_class import check_classes


class TokenClass:
    """Cross-entropy over classes, one target a token (Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section
    5.3). A label of -100 asks nothing: where a word has several tokens, usually all but its first.

    A batch is (inputs_BT, lengths_B, targets_BT).

    Args:
        n_classes: labels are 0 ... n_classes - 1.
        pad_token: what fills up shorter rows. Nobody looks at it.
    """

    asks: ClassVar[str] = "token_class"
    data: ClassVar[str] = "tagged"
    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    by_chance: ClassVar[bool] = False
    alarm: ClassVar[float | None] = 1.0  # nat a target

    def __init__(self, *, n_classes: int, pad_token: int = 0):
        self.n_classes, self.pad_token = n_classes, pad_token

    def collate(
        self, examples: Sequence[tuple[Sequence[int], Sequence[int]]], random: np.random.Generator | None = None
    ) -> Batch:
        """(ids, labels) pairs -> a batch.

        Raises:
            DataError: there is no example, one has no token or not one label a token, or a label is no class.
        """
        texts, labels = [ids for ids, _ in examples], [labels for _, labels in examples]
        check_not_empty(texts, "text")
        for number, (ids, its_labels) in enumerate(examples):
            if len(ids) != len(its_labels):
                raise DataError(
                    f"example {number} of a batch has {len(ids)} tokens and {len(its_labels)} labels; "
                    f"give each token one, {IGNORED} where nothing is asked"
                )
            check_classes([label for label in its_labels if label != IGNORED], self.n_classes)
        targets_BT, _ = padded(labels, IGNORED)
        return *padded(texts, self.pad_token), targets_BT

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of losses in nats, number of labels that count, further metrics); see `NextToken.loss`."""
        return summed_cross_entropy(_logits(model, batch), batch[-1]), number_of(batch[-1]), {}

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What each example cost, and how many of its labels were right."""
        return row_losses(_logits(model, batch), batch[-1])

    def count(self, batch: Batch) -> int:
        """The number of labels that count."""
        return int((batch[-1] != IGNORED).sum())


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    inputs_BT, lengths_B, _ = batch
    return model.token_logits(model(inputs_BT, lengths_B))  # type: ignore[operator]  # (B, T, classes)
