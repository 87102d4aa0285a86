"""Attention for patterns that look only so far: memory and time grow with T x width, not with T x T.

Queries go in chunks. A chunk meets only the keys within the pattern's reach, and there the mask says the rest:

            keys  0 1 | 2 3 | 4 5 | 6 7
    queries 0 1   x .                        Window(3), chunks of 2: each meets its own block of keys and the one before
                  x x                        it. What is masked anyway is mostly not computed, and the result is equal
            2 3   x x   x .                  to that of the whole matrix.
                  . x   x x
            4 5         x x   x .            With sinks, the first keys stand before each row of blocks. With a cache,
                        . x   x x            the queries are the last ones, and older keys than the first of them
            6 7               x x   x .      may see are not read.
                              . x   x x

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1. On CUDA `flex_attention.py` makes one kernel of it.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.layers.patterns import Pattern, Reach

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
Bias = Callable[[Tensor, Tensor], "Tensor | None"]
CHUNKS = (32, 128)  # the smallest and the largest, see docs/experiments.md


def local_reach(pattern: Pattern) -> Reach | None:
    """How far the pattern looks, where that is bounded both ways: `Window`, with sinks, `Around`, short documents."""
    return pattern.reach if pattern.is_local else None


def chunk_size(reach: Reach) -> int:
    """Queries in a chunk: the power of two that is next to the window, within `CHUNKS`."""
    smallest, largest = CHUNKS
    return min(max(2 ** (reach.before + reach.after).bit_length(), smallest), largest)


def worth_chunking(pattern: Pattern, n_queries: int, n_keys: int) -> bool:
    """Whether a chunk reads at most half of the keys."""
    reach = local_reach(pattern)
    if reach is None:
        return False
    return 2 * (min(chunk_size(reach), n_queries) + sum(reach)) <= n_keys


def masked_attention(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    mask: Tensor,
    bias: Tensor | None = None,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention under a boolean mask (T, S) or (B, 1, T, S) and a bias (H, T, S) or (B, H, T, S): -> (B, H, T, D).

    `scale` multiplies the scores (None: 1 / sqrt(D)), `dropout` falls on the weights. A row that sees nothing gives 0.
    """
    added = mask if bias is None else torch.where(mask, bias.to(q_BHTD.dtype), -math.inf)
    y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=added, dropout_p=dropout, scale=scale)
    return torch.where(mask.any(dim=-1, keepdim=True), y_BHTD, 0.0)


def attend_locally(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    pattern: Pattern,
    *,
    attend: Attend = masked_attention,
    bias: Bias | None = None,
    chunk: int | None = None,
) -> Tensor:
    """What `attend` gives for the whole mask of the pattern, chunk by chunk: -> (B, H, T, D).

    Args:
        q_BHTD, k_BHSD, v_BHSD: heads already repeated. The queries are the last T of the S positions (S > T: a cache).
        pos_q, pos_k: (T,) or (B, T), (S,) or (B, S); they rise by one from each place to the next, from 0 or later.
        attend: attention over a chunk: (q, k, v, mask, bias) -> y, mask (t, s) or (B, 1, t, s). `functools.partial` of
            `masked_attention` sets scale and dropout.
        bias: (pos_q, pos_k) of a chunk -> (H, t, s) or (B, H, t, s), added to the scores.
        chunk: queries in a chunk; None: what `chunk_size` says.

    Raises:
        UsageError: the pattern looks far, or there are more queries than keys.
    """
    T, S = q_BHTD.shape[2], k_BHSD.shape[2]
    reach = local_reach(pattern)
    if reach is None:
        raise UsageError(f"{pattern} may look at any distance; attend with its mask, or combine it: ... & window(256)")
    if T > S:
        raise UsageError(f"{T} queries for {S} keys; local attention needs the key of each query")
    before, after, sinks = reach
    size = chunk or chunk_size(reach)
    own = S - T  # the queries' own keys begin here
    first = max(own - before, 0)  # nothing between the sinks and this is read
    # Blocks end where chunks do. `split`, not slices: the gradient of a slice is as long as the whole, for each chunk.
    starts = sorted({first, *range(first + (own - first) % size, S, size)})
    sizes = [end - start for start, end in itertools.pairwise([*starts, S])]

    def blocks(x: Tensor, dim: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x.narrow(dim, 0, min(sinks, S)), x.narrow(dim, first, S - first).split(sizes, dim)

    k_blocks, v_blocks, pos_blocks = blocks(k_BHSD, 2), blocks(v_BHSD, 2), blocks(pos_k, -1)
    answers = []
    for i, (q_BHtD, pos_t) in enumerate(zip(q_BHTD.split(size, 2), pos_q.split(size, -1), strict=True)):
        t = own + i * size
        a = max(bisect_right(starts, t - before) - 1, 0)
        b = bisect_left(starts, t + q_BHtD.shape[2] + after)
        n_sinks = min(sinks, starts[a])  # those that are not in the blocks themselves
        k_BHsD, v_BHsD = (_joined(x, n_sinks, a, b, 2) for x in (k_blocks, v_blocks))
        pos_s = _joined(pos_blocks, n_sinks, a, b, -1)
        mask = pattern.mask(pos_t, pos_s)
        mask = mask.unsqueeze(1) if mask.dim() == 3 else mask
        answers.append(attend(q_BHtD, k_BHsD, v_BHsD, mask, None if bias is None else bias(pos_t, pos_s)))
    return torch.cat(answers, dim=2)


def _joined(x: tuple[Tensor, tuple[Tensor, ...]], n_sinks: int, a: int, b: int, dim: int) -> Tensor:
    """The first sinks and the blocks from a to b."""
    sinks, blocks = x
    parts = [*([sinks.narrow(dim, 0, n_sinks)] if n_sinks else []), *blocks[a:b]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)
