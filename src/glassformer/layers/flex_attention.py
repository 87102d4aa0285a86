"""Attention for any pattern as one kernel, on CUDA: PyTorch's FlexAttention with the pattern's own `allows`.

Blocks that the pattern leaves empty are skipped, so a window, a prefix or packed documents cost what they show, and no
mask is ever in memory: Dong et al. 2024, https://arxiv.org/abs/2412.05496. It has no dropout, and on a CPU no
backward, so there `local_attention.py` stands in.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from glassformer.layers.local_attention import Bias
from glassformer.layers.patterns import Pattern

try:
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
except ImportError:  # a build of PyTorch without it
    flex_attention = None  # type: ignore[assignment]


def flex_serves(q_BHTD: Tensor, pos_q: Tensor, *, dropout: float = 0.0) -> bool:
    """Whether `attend_by_flex` can take these queries: on CUDA, without dropout, positions the same in all rows."""
    return flex_attention is not None and q_BHTD.device.type == "cuda" and not dropout and pos_q.dim() == 1


def attend_by_flex(
    q_BHTD: Tensor,
    k_BHSD: Tensor,
    v_BHSD: Tensor,
    pattern: Pattern,
    *,
    scale: float | None = None,
    bias: Bias | None = None,
) -> Tensor:
    """Attention along the pattern: -> (B, H, T, D). A row that sees nothing gives 0.

    Key j stands at position j, and the queries are the last T of the S positions. `bias` is `Positions.bias`, asked
    for one pair at a time. On a CPU, forward only.
    """
    B, _, T, _ = q_BHTD.shape
    S, device = k_BHSD.shape[2], q_BHTD.device
    rows = None if pattern.rows is None else B
    blocks = (_shared_blocks if rows is None and pattern.size is None else _blocks)(pattern, rows, T, S, device)
    kernel = flex_attention if device.type == "cpu" else _compiled()
    return kernel(q_BHTD, k_BHSD, v_BHSD, score_mod=_score_mod(bias, S - T, device), block_mask=blocks, scale=scale)


def mask_mod(pattern: Pattern, offset: int = 0) -> Any:
    """The pattern as FlexAttention asks for it: (row, head, query, key) -> bool, query 0 at position `offset`."""

    def allowed(b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        return pattern.in_row(b).allows(i + offset, j)

    return allowed


def _score_mod(bias: Bias | None, offset: int, device: torch.device) -> Any:
    nought = torch.zeros(1, dtype=torch.long, device=device)
    if bias is None or bias(nought, nought) is None:
        return None

    def biased(score: Tensor, b: Tensor, h: Tensor, i: Tensor, j: Tensor) -> Tensor:
        added = bias((i + offset).view(1), j.view(1))
        assert added is not None
        return score + added[h, 0, 0].to(score.dtype)

    return biased


def _blocks(pattern: Pattern, rows: int | None, T: int, S: int, device: torch.device) -> BlockMask:
    """Which blocks of the matrix have an edge at all; compiled, so that the matrix itself is never there."""
    on_cuda = device.type == "cuda"
    return create_block_mask(mask_mod(pattern, S - T), rows, None, T, S, device=device, _compile=on_cuda)


_shared_blocks = functools.lru_cache(maxsize=32)(_blocks)  # the layers of a model ask for the same few, step by step


@functools.cache
def _compiled() -> Any:
    return torch.compile(flex_attention, dynamic=False)
