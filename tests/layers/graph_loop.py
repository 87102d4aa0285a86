"""Attention as it would be told to a child: a loop over the nodes of a graph, one number at a time, no tensors.

The tests hold both paths of the real one (`fused` and `glass`) equal to this.
"""

from __future__ import annotations

import math
from collections.abc import Callable

Vector = list[float]


def messages(
    queries: list[Vector], keys: list[Vector], values: list[Vector], sees: Callable[[int, int], bool]
) -> list[Vector]:
    """What each node hears: `sees(i, j)` tells whether there is an edge along which i may ask j.

    Node i asks with its query, every j that it sees holds a key; the better the two fit, the more i hears of j's value.
    A node that sees nobody hears nothing: zeros.
    """
    heard = []
    for i, query in enumerate(queries):
        friends = [j for j in range(len(keys)) if sees(i, j)]
        scores = [dot(query, keys[j]) / math.sqrt(len(query)) for j in friends]
        loudest = max(scores, default=0.0)
        weights = [math.exp(score - loudest) for score in scores]
        total = [0.0] * len(values[0])
        for weight, j in zip(weights, friends, strict=True):
            total = [t + weight / sum(weights) * v for t, v in zip(total, values[j], strict=True)]
        heard.append(total)
    return heard


def rms_norm(vector: Vector, scale: Vector, eps: float) -> Vector:
    root = math.sqrt(sum(x * x for x in vector) / len(vector) + eps)
    return [x / root * s for x, s in zip(vector, scale, strict=True)]


def dot(a: Vector, b: Vector) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
