"""Attention: every token asks, every token it may see answers, in proportion to how well key fits query.

    x ──► qkv ──► q  "what am I looking for"  ─┐
              ├─► k  "what do I hold"         ─┴─► softmax(q k^T / sqrt(D)) ──► weights (T, S)
              └─► v  "what will I tell"       ───────────────────────────────► weights @ v ──► out ──► + x

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1. Grouped heads (Ainslie et al. 2023,
https://arxiv.org/abs/2305.13245): K key-value heads, each shared by H / K query heads:

    query heads      q0 q1 q2 q3 q4 q5
                      \\ | /    \\ | /
    key-value heads     kv0       kv1

Two paths that a test holds equal. *Fused* is PyTorch's kernel. *Glass* is written out, so that its taps
(`scores`, `pattern`) see real tensors; it runs when somebody listens, and on the CPU for short sequences, where it is
no slower.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers.cache import KVCache
from glassformer.layers.norms import RMSNorm
from glassformer.layers.patterns import Causal, Pattern
from glassformer.layers.positions import Positions
from glassformer.taps import Tap

# Up to this many keys the written-out path is no slower than the fused kernel on a CPU in fp32, and several times
# faster in bf16 (benchmarks/attention_paths.py).
GLASS_IS_FASTER_UP_TO = 64


class Attention(nn.Module):
    """Self-attention over (B, T, C) with optional grouped heads and per-head norms of q and k (QK-norm).

    Args:
        n_embd: C. n_head: H. n_kv_head: K, a divisor of H. head_width: D.
        bias: biases on the two projections. qk_norm: RMS-normalise each head's q and k (Henry et al. 2020,
            https://arxiv.org/abs/2010.04245; Qwen3), which bounds the scores. dropout: on weights (`weight_dropout`)
            and output.
    """

    def __init__(
        self,
        *,
        n_embd: int,
        n_head: int,
        n_kv_head: int,
        head_width: int,
        bias: bool,
        qk_norm: bool,
        norm_eps: float,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.n_head, self.n_kv_head, self.head_width = n_head, n_kv_head, head_width
        self.qkv = nn.Linear(n_embd, (n_head + 2 * n_kv_head) * head_width, bias=bias)
        self.out = nn.Linear(n_head * head_width, n_embd, bias=bias)
        self.query_norm = RMSNorm(head_width, eps=norm_eps) if qk_norm else None
        self.key_norm = RMSNorm(head_width, eps=norm_eps) if qk_norm else None
        self.dropout = self.weight_dropout = dropout
        self.tap_query, self.tap_key, self.tap_value = Tap("query"), Tap("key"), Tap("value")
        self.tap_scores, self.tap_pattern, self.tap_heads = Tap("scores"), Tap("pattern"), Tap("heads")
        self.tap_output = Tap("output")

    @property
    def qkv_rows(self) -> tuple[int, int, int]:
        """How the rows of `qkv.weight` divide into query, key and value."""
        return self.n_head * self.head_width, self.n_kv_head * self.head_width, self.n_kv_head * self.head_width

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        pattern: Pattern,
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C). `pos` (T,) or (B, T) are the positions of x; with a cache, keys go back to 0."""
        B, T, C = x_BTC.shape
        H, K, D = self.n_head, self.n_kv_head, self.head_width
        q, k, v = self.qkv(x_BTC).split(self.qkv_rows, dim=-1)
        q_BHTD = q.view(B, T, H, D).transpose(1, 2)
        k_BKTD = k.view(B, T, K, D).transpose(1, 2)
        v_BKTD = v.view(B, T, K, D).transpose(1, 2)
        if self.query_norm is not None and self.key_norm is not None:
            q_BHTD, k_BKTD = self.query_norm(q_BHTD), self.key_norm(k_BKTD)
        q_BHTD, k_BKTD = positions.rotate(q_BHTD, k_BKTD, pos)
        q_BHTD, k_BKTD, v_BKTD = self.tap_query(q_BHTD), self.tap_key(k_BKTD), self.tap_value(v_BKTD)
        if cache is not None:
            k_BKTD, v_BKTD = cache.append(layer, k_BKTD, v_BKTD)  # (B, K, S, D)
        y_BHTD = self._attend(q_BHTD, k_BKTD, v_BKTD, pos, pattern)
        y_BHTD = self.tap_heads(y_BHTD)
        y_BTC = self.out(y_BHTD.transpose(1, 2).reshape(B, T, H * D))
        return self.tap_output(F.dropout(y_BTC, self.dropout, self.training))

    def _attend(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, pos: Tensor, pattern: Pattern) -> Tensor:
        """Choose the path, and the cheapest true form of the mask."""
        T, S = q_BHTD.shape[2], k_BKSD.shape[2]
        groups = self.n_head // self.n_kv_head
        if groups > 1:  # each key-value head answers for a group of query heads
            k_BKSD, v_BKSD = k_BKSD.repeat_interleave(groups, dim=1), v_BKSD.repeat_interleave(groups, dim=1)
        causal = isinstance(pattern, Causal)
        mask: Tensor | str | None
        if causal and T == 1:
            mask = None  # the newest token sees all that is cached
        elif causal and T == S:
            mask = "causal"
        else:
            pos_k = torch.arange(S, device=pos.device) if S != T else pos
            allowed = pattern.mask(pos, pos_k)
            mask = allowed.unsqueeze(1) if allowed.dim() == 3 else allowed  # (B, 1, T, S) or (T, S)
        listened_to = self.tap_scores.listener is not None or self.tap_pattern.listener is not None
        if listened_to or (q_BHTD.device.type == "cpu" and S <= GLASS_IS_FASTER_UP_TO):
            return self._glass(q_BHTD, k_BKSD, v_BKSD, mask)
        return self._fused(q_BHTD, k_BKSD, v_BKSD, mask)

    def _glass(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask: Tensor | str | None) -> Tensor:
        """Attention written out: scores, mask, softmax, weighted sum. A row that may see nothing gives zeros."""
        scores_BHTS = self.tap_scores((q_BHTD * (1 / math.sqrt(self.head_width))) @ k_BHSD.transpose(-2, -1))
        if isinstance(mask, str):
            T = q_BHTD.shape[2]
            scores_BHTS = scores_BHTS + scores_BHTS.new_full((T, T), -math.inf).triu(1)
            pattern_BHTS = scores_BHTS.softmax(dim=-1)
        elif mask is not None:
            pattern_BHTS = scores_BHTS.masked_fill(~mask, -math.inf).softmax(dim=-1).masked_fill(~mask, 0.0)
        else:
            pattern_BHTS = scores_BHTS.softmax(dim=-1)
        pattern_BHTS = F.dropout(self.tap_pattern(pattern_BHTS), self.weight_dropout, self.training)
        return pattern_BHTS @ v_BHSD

    def _fused(self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, mask: Tensor | str | None) -> Tensor:
        """The same by `scaled_dot_product_attention` (FlashAttention where the device has it)."""
        dropout = self.weight_dropout if self.training else 0.0
        if mask is None or isinstance(mask, str):
            return F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, dropout_p=dropout, is_causal=mask is not None)
        y_BHTD = F.scaled_dot_product_attention(q_BHTD, k_BHSD, v_BHSD, attn_mask=mask, dropout_p=dropout)
        return torch.where(mask.any(dim=-1, keepdim=True), y_BHTD, 0.0)  # the kernel leaves empty rows undefined
