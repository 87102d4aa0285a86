"""The arithmetic of relative positions: how much a score loses, or which learned number it gets, at a distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from glassformer.errors import UsageError


def distances(pos_q: Tensor, pos_k: Tensor) -> Tensor:
    """Key position minus query position: (..., T) and (..., S) -> (..., T, S), negative in the past."""
    return pos_k.unsqueeze(-2) - pos_q.unsqueeze(-1)


def alibi_slopes(n_head: int) -> list[float]:
    """What each head subtracts a step of distance: the powers 1..n_head of 2^(-8 / n_head).

    Where n_head is no power of two: those of the next smaller one, then every second slope of the next larger one
    (Press et al. 2021, https://arxiv.org/abs/2108.12409, sect. 3 and the authors' code; Bloom and MPT do the same).

    >>> alibi_slopes(4)
    [0.25, 0.0625, 0.015625, 0.00390625]
    >>> alibi_slopes(3)
    [0.0625, 0.00390625, 0.25]
    """
    power = 2 ** int(math.log2(n_head))
    slopes = [2 ** (-8 * i / power) for i in range(1, power + 1)]
    between = [2 ** (-8 * i / (2 * power)) for i in range(1, 2 * power + 1, 2)]
    return slopes + between[: n_head - power]


def bucket_of_distances(n_buckets: int, max_distance: int, *, causal: bool) -> Tensor:
    """T5's bucket of every distance from -max_distance to max_distance: (2 max_distance + 1,) int64.

    Half of the buckets hold one distance each, the others grow with the logarithm; what is further than `max_distance`
    shares the bucket of `max_distance`. Causal: all buckets are for the past, and the future counts as distance 0.
    Otherwise the second half of the buckets is for the future. Raffel et al. 2020, https://arxiv.org/abs/1910.10683,
    sect. 2.1, after the code of Mesh TensorFlow.

    >>> bucket_of_distances(4, 4, causal=True).tolist()  # distances -4 ... 4
    [3, 3, 2, 1, 0, 0, 0, 0, 0]

    Raises:
        UsageError: too few buckets, an odd number for two directions, or no distance left for the growing ones.
    """
    least = 2 if causal else 4
    if n_buckets < least:
        raise UsageError(f"relative_buckets={n_buckets} is too small; use {least} or more")
    if not causal and n_buckets % 2:
        raise UsageError(f"relative_buckets={n_buckets} is odd; half of them are for the future: use {n_buckets + 1}")
    one_way = n_buckets if causal else n_buckets // 2
    exact = one_way // 2  # these hold one distance each
    if max_distance <= exact:
        raise UsageError(
            f"relative_max_distance={max_distance} is too small for {n_buckets} buckets; use {exact + 1} or more"
        )
    distance = torch.arange(-max_distance, max_distance + 1)
    steps = (-distance).clamp_min(0) if causal else distance.abs()
    grown = (steps.clamp_min(1).float() / exact).log() / math.log(max_distance / exact) * (one_way - exact)
    bucket = torch.where(steps < exact, steps, (exact + grown.long()).clamp_max(one_way - 1))
    return bucket if causal else bucket + one_way * (distance > 0)
