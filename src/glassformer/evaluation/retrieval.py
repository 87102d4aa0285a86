"""Retrieval: does the right one of many stand first, or among the first five?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassformer.evaluation.estimate import Share

AT = (1, 5)


@dataclass(frozen=True)
class RetrievalScores:
    """n: images, and as many captions. found: by direction and by k, how often the right one is among the first k.
    chance: the same by k, for an order at random."""

    n: int
    found: dict[str, dict[int, Share]]
    chance: dict[int, float]

    def to_dict(self) -> dict[str, Any]:
        shares = {name: {str(k): share._asdict() for k, share in row.items()} for name, row in self.found.items()}
        return {"retrieval": shares, "retrieval_chance": {str(k): p for k, p in self.chance.items()}}

    def lines(self) -> list[str]:
        """A line for each direction and k."""
        return [
            f"{name}, among the first {k:<5} {share}, by chance {100 * self.chance[k]:.1f} %"
            for name, row in self.found.items()
            for k, share in row.items()
        ]


def retrieval_scores(similarities_NN: np.ndarray, captions: Sequence[str]) -> RetrievalScores:
    """The scores of N images (rows) and their captions (columns); an equal caption is as right as the own one.

    >>> retrieval_scores(np.array([[3.0, 1.0], [2.0, 1.0]]), ["a", "b"]).found["caption of an image"][1].value
    0.5
    """
    N = len(captions)
    same_NN: Any = np.array(captions)[:, None] == np.array(captions)
    found = {}
    for name, order in (("caption of an image", similarities_NN), ("image of a caption", similarities_NN.T)):
        best_NN = np.argsort(-order, axis=1, kind="stable")
        right_NN: Any = np.take_along_axis(same_NN, best_NN, axis=1)
        found[name] = {k: Share.of(right_NN[:, :k].any(axis=1).tolist()) for k in AT}
    equal_N = same_NN.sum(axis=1)
    return RetrievalScores(N, found, {k: float(np.mean([_by_chance(N, m, k) for m in equal_N])) for k in AT})


def _by_chance(N: int, m: int, k: int) -> float:
    """The probability that one of m right ones is among the first k of N at random."""
    missed = 1.0
    for i in range(min(k, N)):
        missed *= max(N - m - i, 0) / (N - i)
    return 1 - missed
