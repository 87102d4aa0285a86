"""Next token: at every position, how surprised is the model by what really came?"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


class NextToken:
    """Cross-entropy in nats, summed over positions; the loop divides by the count over the whole step, so that
    accumulation, masks and ranks change nothing."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int, dict[str, float]]:
        """(inputs, targets), both (B, T) ids -> (sum of losses, number of targets, further metrics)."""
        inputs_BT, targets_BT = batch
        logits_BTV = model(inputs_BT)
        full = torch.promote_types(logits_BTV.dtype, torch.float32)  # halves are too coarse to add up; doubles stay
        loss = F.cross_entropy(logits_BTV.flatten(0, 1).to(full), targets_BT.flatten(), reduction="sum")
        return loss, targets_BT.numel(), {}
