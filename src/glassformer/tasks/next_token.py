"""Next token: at every position, how surprised is the model by what really came?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from glassformer.errors import DataError
from glassformer.models import Decoder
from glassformer.tasks.cross_entropy import IGNORED, linear_cross_entropy, rows_at_once
from glassformer.tasks.objective import (
    Batch,
    ObjectiveSettings,
    RowLosses,
    number_of,
    padded,
    place_losses,
    row_losses,
    rows_of,
    summed_cross_entropy,
)


class NextToken:
    """Cross-entropy in nats, summed over the targets that count; the loop divides by their number over the whole step,
    so that accumulation, masks of unequal length and ranks change nothing.

    A batch is (inputs, targets), both (B, T) ids; a target of -100 does not count.
    """

    asks: ClassVar[str] = "next_token"
    data: ClassVar[str] = "text"
    Settings: ClassVar[type[ObjectiveSettings]] = ObjectiveSettings
    by_chance: ClassVar[bool] = False
    alarm: ClassVar[float | None] = 1.0  # nat a target

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of losses, number of targets that count, further metrics).

        The sum is fp32 or float64. The number is an int on the CPU. On a GPU, where to know it would mean to wait for
        all work in flight, and inside `torch.compile`, it is a 0-dim tensor; `count` tells it beforehand.

        Where the logits would fill more than one piece (`rows_at_once`: 32 MiB of fp32 on a CPU, 256 MiB on a GPU), a
        decoder is asked for its vectors and head and loss are computed together, piece by piece, unless somebody
        listens to the tap `logits`. The result is the same.
        """
        inputs_BT, targets_BT = batch
        if isinstance(model, Decoder) and many_logits(model, targets_BT):
            hidden_BTC = model.hidden(inputs_BT)
            loss, _ = linear_cross_entropy(
                hidden_BTC.flatten(0, 1), model.head.weight, targets_BT.flatten(), model.head.bias, IGNORED
            )
        else:
            loss = summed_cross_entropy(model(inputs_BT), targets_BT)
        return loss, number_of(targets_BT), {}

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What each sequence cost. Where the logits are many they are made in pieces, as in `loss`; no gradients."""
        inputs_BT, targets_BT = batch
        if not isinstance(model, Decoder) or not many_logits(model, targets_BT):
            return row_losses(model(inputs_BT), targets_BT)
        n = rows_at_once(model.head.out_features, targets_BT.device.type)
        with torch.no_grad():
            hidden_NC = model.hidden(inputs_BT).flatten(0, 1)  # N = B T
            told = [
                place_losses(model.head(hidden_nC), targets_n)
                for hidden_nC, targets_n in zip(hidden_NC.split(n), targets_BT.flatten().split(n), strict=True)
            ]
        losses, hits = zip(*told, strict=True)
        return rows_of(torch.cat(losses), torch.cat(hits), targets_BT)

    def count(self, batch: Batch) -> int:
        """The number of targets that count. On the CPU's copy of a batch it costs nothing; on a GPU's it waits."""
        return int((batch[1] != IGNORED).sum())

    def collate(self, examples: Sequence[Sequence[int]], random: np.random.Generator | None = None) -> Batch:
        """Token sequences of any lengths -> a batch. A sequence of n tokens holds n - 1 predictions; shorter ones are
        filled up on the right: inputs with 0, which nobody before it sees, and targets with -100.

        Raises:
            DataError: no example holds a prediction.
        """
        T = max((len(ids) for ids in examples), default=0) - 1
        if T < 1:
            raise DataError(f"{len(examples)} examples hold no prediction, which needs 2 tokens; give longer ones")
        inputs_BT, _ = padded([ids[:-1] for ids in examples], 0)
        targets_BT, _ = padded([ids[1:] for ids in examples], IGNORED)
        return inputs_BT, targets_BT


def many_logits(model: Decoder, targets_BT: Tensor) -> bool:
    """Whether head and loss go piece by piece: several pieces, an ordinary head, and nobody who wants the logits."""
    if model.tap_logits.listener is not None or not model.head_is_plain:
        return False
    return targets_BT.numel() > rows_at_once(model.head.out_features, targets_BT.device.type)
