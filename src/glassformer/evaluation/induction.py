"""Induction: random tokens come twice, and only a model that copies predicts them the second time.

    f q z a  f q z a         prefix matching: the attention of a head at the second f to q, which came after the first
                             copying: the loss at the second time

Olsson et al. 2022, https://arxiv.org/abs/2209.11895.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.evaluation.estimate import Metric
from glassformer.taps import listening


def prefix_matching(pattern_BHTT: Tensor, start: int, length: int) -> Tensor:
    """(B, H): the mean attention, over the second time, to what came after the token the first time. The tokens are
    `start` others and `length` tokens twice."""
    queries = torch.arange(start + length, start + 2 * length, device=pattern_BHTT.device)
    return pattern_BHTT[:, :, queries, queries - length + 1].mean(dim=-1)


@dataclass(frozen=True)
class Induction:
    """scores: of every head, (L, H). best: of the head with the highest one. first, second: the loss in nats at the
    first and the second time. Each metric is over rows."""

    scores_LH: Tensor
    best: Metric
    first: Metric
    second: Metric


def induction(model: Any, ids_BT: Tensor, length: int) -> Induction:
    """Measure a decoder in eval mode on rows of `length` tokens that come twice, behind any others."""
    start = ids_BT.shape[1] - 2 * length
    seen: dict[str, Tensor] = {}

    def keep(name: str, pattern_BHTT: Tensor) -> None:
        seen[name] = prefix_matching(pattern_BHTT.float(), start, length)

    with torch.compiler.set_stance("force_eager"), listening(model, "*.attention.pattern", keep):
        logits_BTV = model(ids_BT)[:, :-1].float()
    losses_BT = F.cross_entropy(logits_BTV.transpose(1, 2), ids_BT[:, 1:], reduction="none")
    scores_BLH = torch.stack([*seen.values()], dim=1).cpu()
    scores_LH = scores_BLH.mean(dim=0)
    best_B = scores_BLH.flatten(1)[:, scores_LH.argmax()]
    middle = start + length - 1
    first_B, second_B = losses_BT[:, start:middle].mean(dim=1), losses_BT[:, middle:].mean(dim=1)
    return Induction(scores_LH, *map(_mean, (best_B, first_B, second_B)))


def _mean(x_B: Tensor) -> Metric:
    n = len(x_B)
    spread = 1.96 * float(x_B.double().std()) / math.sqrt(n) if n > 1 else math.inf
    return Metric(float(x_B.double().mean()), n, spread)
