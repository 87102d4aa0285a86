"""Attention that computes only what a mask leaves: in chunks for masks of bounded reach, or by FlexAttention on CUDA.

Queries go in chunks. A chunk reads only the keys within the mask's reach, and there the mask decides:

            keys  0 1 | 2 3 | 4 5 | 6 7
    queries 0 1   x .                        Window(3), chunks of 2: each reads its own block of keys and the one before
                  x x                        it. What is masked anyway is mostly not computed, and the result is equal
            2 3   x x   x .                  to that of the whole matrix: memory and time grow with T x width.
                  . x   x x
            4 5         x x   x .            With sinks, the first keys stand before each row of blocks. With a cache,
                        . x   x x            the queries are the last ones, and older keys than the first of them
            6 7               x x   x .      may see are not read.
                              . x   x x

Beltagy et al. 2020, https://arxiv.org/abs/2004.05150, section 3.1. FlexAttention (Dong et al. 2024,
https://arxiv.org/abs/2412.05496) skips empty blocks of any mask in one kernel and never builds the matrix. It has no
dropout, and no backward on a CPU.
"""

from __future__ import annotations

import functools
import itertools
import math
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.layers.masks import Mask, Reach

try:
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
except ImportError:  # a build of PyTorch without it
    flex_attention = None  # type: ignore[assignment]

Attend = Callable[[Tensor, Tensor, Tensor, Tensor, "Tensor | None"], Tensor]
Bias = Callable[[Tensor, Tensor], "Tensor | None"]
CHUNKS = (32, 128)  # the smallest and the largest, see docs/experiments.md


def chunk_size(reach: Reach) -> int:
    """Queries in a chunk: the power of two next to the window, within `CHUNKS`."""
    smallest, largest = CHUNKS
    return min(max(2 ** (reach.before + reach.after).bit_length(), smallest), largest)


def worth_chunking(mask: Mask, n_queries: int, n_keys: int) -> bool:
    """Whether the mask is local and a chunk reads at most half of the keys."""
    reach = mask.reach
    return mask.is_local and 2 * (min(chunk_size(reach), n_queries) + sum(reach)) <= n_keys


def masked_attention(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    allowed: Tensor | None,
    bias: Tensor | None = None,
    *,
    sinks: Tensor | None = None,
    scale: float | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """Attention under a boolean matrix (T, S) or (B, 1, T, S) and a bias (H, T, S) or (B, H, T, S): -> (B, H, T, D).

    `sinks` (H,) are scores of one more key that has no value. `scale` multiplies the other scores (None: 1 / sqrt(D)),
    `dropout` falls on the weights. A row that sees nothing gives 0.
    """
    added = allowed
    if bias is not None or sinks is not None:
        (_, H, T, _), S = q_BHTD.shape, k_BHSD.shape[2]
        added = q_BHTD.new_zeros(H, T, S) if bias is None else bias.to(q_BHTD.dtype)
        added = added if allowed is None else torch.where(allowed, added, -math.inf)
        if sinks is not None:
            sinks = sinks.to(added.dtype).view(H, 1, 1).expand(*added.shape[:-1], 1)
            added = torch.cat((added, sinks), dim=-1)
            k_BHSD, v_BHSD = F.pad(k_BHSD, (0, 0, 0, 1)), F.pad(v_BHSD, (0, 0, 0, 1))
    grouped = q_BHTD.shape[1] != k_BHSD.shape[1]
    y_BHTD = F.scaled_dot_product_attention(
        q_BHTD, k_BHSD, v_BHSD, attn_mask=added, dropout_p=dropout, scale=scale, enable_gqa=grouped
    )
    if allowed is None:
        return y_BHTD
    return torch.where(allowed.any(dim=-1, keepdim=True), y_BHTD, 0.0)  # the kernel leaves empty rows undefined


def attend_locally(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    pos_q: Tensor,
    pos_k: Tensor,
    mask: Mask,
    *,
    attend: Attend = masked_attention,
    bias: Bias | None = None,
    chunk: int | None = None,
) -> Tensor:
    """What `attend` gives for the whole matrix of the mask, chunk by chunk: -> (B, H, T, D).

    Args:
        q_BHTD, k_BHSD, v_BHSD: heads already repeated. The queries are the last T of the S positions (S > T: a cache).
        pos_q, pos_k: (T,) or (B, T), (S,) or (B, S); they rise by one from each place to the next, from 0 or later.
        attend: attention over a chunk: (q, k, v, allowed, bias) -> y, allowed (t, s) or (B, 1, t, s).
        bias: (pos_q, pos_k) of a chunk -> (H, t, s) or (B, H, t, s), added to the scores.
        chunk: queries in a chunk; None: `chunk_size`.

    Raises:
        UsageError: the mask is not local, or there are more queries than keys.
    """
    T, S = q_BHTD.shape[2], k_BHSD.shape[2]
    if not mask.is_local:
        raise UsageError(f"{mask} may look at any distance; attend with its matrix, or combine it: ... & window(256)")
    if T > S:
        raise UsageError(f"{T} queries for {S} keys; local attention needs the key of each query")
    before, after, sinks = reach = mask.reach
    size = chunk or chunk_size(reach)
    own = S - T  # the queries' own keys begin here
    first = max(own - before, 0)  # nothing between the sinks and this is read
    # Blocks end where chunks do. `split`, not slices: the gradient of a slice is as long as the whole, for each chunk.
    starts = sorted({first, *range(first + (own - first) % size, S, size)})
    sizes = [end - start for start, end in itertools.pairwise([*starts, S])]

    def blocks(x: Tensor, dim: int) -> tuple[Tensor, tuple[Tensor, ...]]:
        return x.narrow(dim, 0, min(sinks, S)), x.narrow(dim, first, S - first).split(sizes, dim)

    k_blocks, v_blocks, pos_blocks = blocks(k_BHSD, 2), blocks(v_BHSD, 2), blocks(pos_k, -1)
    outputs = []
    for i, (q_BHtD, pos_t) in enumerate(zip(q_BHTD.split(size, 2), pos_q.split(size, -1), strict=True)):
        t = own + i * size
        a = max(bisect_right(starts, t - before) - 1, 0)
        b = bisect_left(starts, t + q_BHtD.shape[2] + after)
        n_sinks = min(sinks, starts[a])  # those that are not in the blocks themselves
        k_BHsD, v_BHsD = (_joined(x, n_sinks, a, b, 2) for x in (k_blocks, v_blocks))
        pos_s = _joined(pos_blocks, n_sinks, a, b, -1)
        allowed = mask.mask(pos_t, pos_s)
        allowed = allowed.unsqueeze(1) if allowed.dim() == 3 else allowed
        outputs.append(attend(q_BHtD, k_BHsD, v_BHsD, allowed, None if bias is None else bias(pos_t, pos_s)))
    return torch.cat(outputs, dim=2)


def _joined(x: tuple[Tensor, tuple[Tensor, ...]], n_sinks: int, a: int, b: int, dim: int) -> Tensor:
    """The first sinks and the blocks from a to b."""
    sinks, blocks = x
    parts = [*([sinks.narrow(dim, 0, n_sinks)] if n_sinks else []), *blocks[a:b]]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim)


def flex_supports(q_BHTD: Tensor, pos_q: Tensor, *, dropout: float = 0.0) -> bool:
    """Whether `attend_by_flex` can take these queries: on CUDA, without dropout, positions the same in all rows."""
    return flex_attention is not None and q_BHTD.device.type == "cuda" and not dropout and pos_q.dim() == 1


def attend_by_flex(
    q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask: Mask, *, scale: float | None = None, bias: Bias | None = None
) -> Tensor:
    """Attention under a mask by one kernel: -> (B, H, T, D). A row that sees nothing gives 0.

    Key j stands at position j, and the queries are the last T of the S positions. `bias` is `Positions.bias`, called
    for one pair at a time. On a CPU, forward only.
    """
    T, S, device = q_BHTD.shape[2], k_BHSD.shape[2], q_BHTD.device
    blocks = (_shared_blocks if mask.rows is None and mask.size is None else _blocks)(mask, T, S, device)
    kernel = flex_attention if device.type == "cpu" else _compiled()
    return kernel(q_BHTD, k_BHSD, v_BHSD, score_mod=_score_mod(bias, S - T, device), block_mask=blocks, scale=scale)


def _score_mod(bias: Bias | None, offset: int, device: torch.device) -> Any:
    zero = torch.zeros(1, dtype=torch.long, device=device)
    if bias is None or bias(zero, zero) is None:
        return None

    def biased(score: Tensor, b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        added = bias((q + offset).view(1), k.view(1))
        assert added is not None
        return score + added[h, 0, 0].to(score.dtype)

    return biased


def _blocks(mask: Mask, T: int, S: int, device: torch.device) -> BlockMask:
    """Which blocks of the matrix have an edge at all; compiled on CUDA, so that the matrix itself is never there."""

    def shifted(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return mask.mask_mod(b, h, q + (S - T), k)  # query 0 stands at position S - T

    return create_block_mask(shifted, mask.rows, None, T, S, device=device, _compile=device.type == "cuda")


_shared_blocks = functools.lru_cache(maxsize=32)(_blocks)  # the layers of a model ask for the same few, step by step


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)
