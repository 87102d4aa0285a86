"""Is one validation loss really lower than another?

Two models find the same passages of a text hard, and these cancel in the difference. So runs with the same targets are
compared *paired*, passage by passage; others by their two intervals. (Miller 2024, "Adding Error Bars to Evals",
https://arxiv.org/abs/2411.00640: clustered standard errors, paired differences.)

Two sets of weights are compared; that a *recipe* is better takes several seeds of both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import torch
from torch import Tensor

from glassformer.evaluation.estimate import LossEstimate, WindowLosses, standard_error


@dataclass(frozen=True)
class Comparison:
    """Loss of A minus loss of B.

    difference: in `unit`, negative when A is better. interval: half the width of its 95 % interval, infinite when
    nothing is known. method: "paired" or "unpaired". n: passages compared in pairs. unit: "nats a token", or "bits a
    byte" where the tokens are not the same.
    """

    difference: float
    interval: float
    method: str
    n: int
    unit: str

    @property
    def significant(self) -> bool:
        """Whether the interval excludes 0: between equally good models that happens in 5 of 100 cases."""
        return abs(self.difference) > self.interval


def compare_losses(
    a: tuple[LossEstimate, WindowLosses | None],
    b: tuple[LossEstimate, WindowLosses | None],
    *,
    same_tokens: bool = True,
    comparisons: int = 1,
) -> Comparison:
    """The difference of two losses and its 95 % interval.

    Paired, when both have window losses with the same targets: Student's t times the standard error of the passages'
    differences (windows of different length, such as 64 and 256, are first joined to passages that both have, 256). For
    fewer than about ten passages it misses the true difference more often than in 5 of 100 texts.

    Unpaired, from the two intervals: the square root of the sum of their squares. On the same text it is too wide: what
    it calls significant is, what it does not may be.

    Args:
        same_tokens: False when the tokenizers differ, so that a nat a token means two things; then bits a byte.
        comparisons: how many are made at once; each gets the confidence 1 - 0.05 / comparisons (Bonferroni). Comparing
            the best of k runs with the others makes k (k - 1) / 2.
    """
    from scipy.special import stdtrit  # the quantile of Student's t; scipy.stats would take 0.5 s to import

    tail = 0.025 / comparisons
    (loss_a, windows_a), (loss_b, windows_b) = a, b
    if windows_a is not None and windows_b is not None and windows_a.targets == windows_b.targets:
        differences, counts = _paired(windows_a, windows_b)
        n = len(counts)
        difference = float(differences.sum() / counts.sum())
        half = float(stdtrit(n - 1, 1 - tail)) * standard_error(differences, counts) if n > 1 else math.inf
        return Comparison(difference, half, "paired", n, "nats a token")
    scale_a = scale_b = 1.0
    if not same_tokens:
        scale_a, scale_b = ((x.bits_per_byte or math.nan) / x.loss if x.loss else math.nan for x in (loss_a, loss_b))
    half = math.hypot(loss_a.interval * scale_a, loss_b.interval * scale_b) * NormalDist().inv_cdf(1 - tail) / 1.96
    difference = loss_a.loss * scale_a - loss_b.loss * scale_b
    unit = "nats a token" if same_tokens else "bits a byte"
    return Comparison(difference, half if math.isfinite(difference) else math.inf, "unpaired", 0, unit)


def _paired(a: WindowLosses, b: WindowLosses) -> tuple[Tensor, Tensor]:
    """Difference of the sums, and the count, of each of the shortest passages that both cut at their ends, (N,)."""
    ends_a, ends_b = a.counts.cumsum(0), b.counts.cumsum(0)  # (N_a,), (N_b,) targets up to and with each window
    ends = ends_a[torch.isin(ends_a, ends_b)]  # (N,)
    upto_a = a.sums.cumsum(0)[torch.searchsorted(ends_a, ends)]
    upto_b = b.sums.cumsum(0)[torch.searchsorted(ends_b, ends)]
    zero = torch.zeros(1, dtype=torch.float64)
    return torch.diff(upto_a - upto_b, prepend=zero), torch.diff(ends, prepend=torch.zeros(1, dtype=ends.dtype))
