"""Next token: at every position, how surprised is the model by what really came?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import DataError
from glassformer.models import Decoder
from glassformer.objectives.cross_entropy import IGNORED, linear_cross_entropy, rows_at_once

Batch = tuple[Tensor, Tensor]


class NextToken:
    """Cross-entropy in nats, summed over the targets that count; the loop divides by their number over the whole step,
    so that accumulation, masks of unequal length and ranks change nothing.

    A batch is (inputs, targets), both (B, T) ids; a target of -100 does not count.
    """

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of losses, number of targets that count, further metrics).

        The sum is fp32 or float64. The number is an int on the CPU. On a GPU, where to know it would mean to wait for
        all work in flight, and inside `torch.compile`, it is a 0-dim tensor; `count` tells it beforehand.

        Where the logits would fill more than one piece (`rows_at_once`: 32 MiB of fp32 on a CPU, 256 MiB on a GPU), a
        decoder is asked for its vectors and head and loss are computed together, piece by piece, unless somebody
        listens to the tap `logits`. The result is the same.
        """
        inputs_BT, targets_BT = batch
        if isinstance(model, Decoder) and _many_logits(model, targets_BT):
            hidden_BTC = model.hidden(inputs_BT)
            loss, count = linear_cross_entropy(
                hidden_BTC.flatten(0, 1), model.head.weight, targets_BT.flatten(), model.head.bias, IGNORED
            )
        else:
            logits_BTV = model(inputs_BT)
            full = torch.promote_types(logits_BTV.dtype, torch.float32)  # halves are too coarse to add up
            loss = F.cross_entropy(
                logits_BTV.flatten(0, 1).to(full), targets_BT.flatten(), reduction="sum", ignore_index=IGNORED
            )
            count = (targets_BT != IGNORED).sum()
        known = targets_BT.device.type == "cpu" and not torch.compiler.is_compiling()
        return loss, int(count) if known else count, {}

    def count(self, batch: Batch) -> int:
        """The number of targets that count. On the CPU's copy of a batch it costs nothing; on a GPU's it waits."""
        return int((batch[1] != IGNORED).sum())

    def collate(self, examples: Sequence[Sequence[int]]) -> Batch:
        """Token sequences of any lengths -> a batch. A sequence of n tokens holds n - 1 predictions; shorter ones are
        filled up on the right: inputs with 0, which nobody before it sees, and targets with -100.

        Raises:
            DataError: no example holds a prediction.
        """
        T = max((len(ids) for ids in examples), default=0) - 1
        if T < 1:
            raise DataError(f"{len(examples)} examples hold no prediction, which needs 2 tokens; give longer ones")
        inputs_BT = torch.zeros(len(examples), T, dtype=torch.int64)
        targets_BT = torch.full((len(examples), T), IGNORED, dtype=torch.int64)
        for row, ids in enumerate(examples):
            n = max(len(ids) - 1, 0)
            inputs_BT[row, :n] = torch.as_tensor(ids[:n], dtype=torch.int64)
            targets_BT[row, :n] = torch.as_tensor(ids[1:], dtype=torch.int64)
        return inputs_BT, targets_BT


def _many_logits(model: Decoder, targets_BT: Tensor) -> bool:
    """Whether head and loss go piece by piece: several pieces, an ordinary head, and nobody who wants the logits."""
    if model.tap_logits.listener is not None or type(model.head) is not nn.Linear:
        return False
    return targets_BT.numel() > rows_at_once(model.head.out_features, targets_BT.device.type)
