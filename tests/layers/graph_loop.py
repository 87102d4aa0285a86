"""The readable twin of attention, a loop over the nodes of a graph, and what a layer does around it, number by number.

The tests hold both paths of the real one (`fused` and `eager`) equal to this. The loop is the lessons' own.
"""

from __future__ import annotations

import math

from glassformer.lessons.attention_as_messages import Vector, dot, messages

__all__ = ["dot", "messages", "rms_norm"]


def rms_norm(vector: Vector, scale: Vector, eps: float) -> Vector:
    root = math.sqrt(sum(x * x for x in vector) / len(vector) + eps)
    return [x / root * s for x, s in zip(vector, scale, strict=True)]
