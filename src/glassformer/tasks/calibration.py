"""Is a reward model right as often as it states? Of pairs whose margin gives P(chosen) = sigmoid(margin).

    margin of the larger reward   0.8   stated sigmoid(0.8) = 69 %     among such pairs it is right in ... %

Expected calibration error: sum over bins of (share of pairs) |accuracy - mean confidence| (Naeini et al. 2015; Guo et
al. 2017, https://arxiv.org/abs/1706.04599, equation 3). With few pairs a bin it is above 0 even for a perfect model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from glassformer.evaluation.phonemes import wilson_interval
from glassformer.figures.primitives import Column, Curves, Figure, Line, Table

BINS = 5
"""Equal steps of confidence from 50 to 100 %."""


class Bin(NamedTuple):
    """Pairs of like confidence: the mean of it, how many, and in how many the larger reward is right."""

    confidence: float
    n: int
    right: int

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """95 % of the accuracy (Wilson)."""
        return wilson_interval(self.right, self.n)


@dataclass(frozen=True)
class Calibration:
    """margins: reward of the chosen answer minus that of the rejected one, (N,) sorted. bins: those with pairs."""

    margins: np.ndarray
    bins: list[Bin]

    @classmethod
    def of(cls, margins: np.ndarray) -> Calibration:
        """From the margins (N,) of pairs."""
        confidence = 1 / (1 + np.exp(-np.abs(margins)))
        place = np.minimum(((confidence - 0.5) * 2 * BINS).astype(int), BINS - 1)
        members = [np.flatnonzero(place == i) for i in range(BINS)]
        bins = [Bin(float(confidence[m].mean()), len(m), int((margins[m] > 0).sum())) for m in members if len(m)]
        return cls(np.sort(margins), bins)

    @property
    def error(self) -> float:
        """The expected calibration error, 0 to 1."""
        return float(sum(b.n * abs(b.accuracy - b.confidence) for b in self.bins) / len(self.margins))

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, JSON-able."""
        rows = [{**b._asdict(), "accuracy": b.accuracy, "interval": list(b.interval)} for b in self.bins]
        return {"calibration_error": self.error, "margin": float(self.margins.mean()), "reliability": rows}

    def lines(self) -> list[str]:
        """For `glassformer evaluate`."""
        rows = [
            f"  states {100 * b.confidence:5.1f} %: right in {b.right} of {b.n:,} "
            f"({100 * b.interval[0]:.0f} to {100 * b.interval[1]:.0f} %)"
            for b in self.bins
        ]
        return [f"calibration    error {self.error:.3f}, n = {len(self.margins):,}", *rows]

    def figures(self) -> list[Figure]:
        """The reliability table, and the margins in order."""
        columns = [Column("stated", "share"), Column("right", "share"), Column("95 %"), Column("pairs", "count")]
        rows = [[b.confidence, b.accuracy, "{:.0%} to {:.0%}".format(*b.interval), b.n] for b in self.bins]
        share = (np.arange(len(self.margins)) + 0.5) / len(self.margins)
        line = Line("margin", share, self.margins)
        return [
            Table(
                f"Stated and true share of right choices (expected calibration error {self.error:.3f})", columns, rows
            ),
            Curves("Margins in order", [line], "share of pairs", "reward of chosen - rejected", levels=[("none", 0.0)]),
        ]
