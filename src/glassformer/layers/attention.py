"""Attention: each query is compared with every key that its mask allows, and takes the mean of the values by fit.

    x ──► qkv ──► q  "what am I looking for"  ─┐
              ├─► k  "what do I hold"         ─┴─► softmax(q k^T / sqrt(D)) ──► weights (T, S)
              └─► v  "what do I pass on"      ───────────────────────────────► weights @ v ──► out ──► + x

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, eq. 1. Grouped heads (Ainslie et al. 2023,
https://arxiv.org/abs/2305.13245): K key-value heads, each shared by H / K query heads:

    query heads      q0 q1 q2 q3 q4 q5
                      \\ | /    \\ | /
    key-value heads     kv0       kv1

Cross-attention takes queries from x and keys and values from a memory (an encoder's vectors).

Two paths that a test holds equal. *Fused* is PyTorch's kernel. *Eager* is written out, so that its taps (`scores`,
`pattern`) see real tensors; it runs when a tap has a listener, on the CPU for short sequences, where it is no slower,
and for what the kernel cannot do (soft-capped scores).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers.batch_masks import Documents, PaddingMask
from glassformer.layers.cache import KVCache
from glassformer.layers.masks import And, Causal, Full, Mask
from glassformer.layers.norms import RMSNorm
from glassformer.layers.positions import Positions
from glassformer.layers.row_cache import Rows
from glassformer.layers.sparse_attention import (
    attend_by_flex,
    attend_locally,
    flex_supports,
    masked_attention,
    worth_chunking,
)
from glassformer.taps import Tap

# Up to this many keys the eager path is no slower than the fused kernel on a CPU in fp32, and several times faster in
# bf16 (benchmarks/attention_paths.py).
EAGER_MAX_KEYS = 64


# Documents in one row are attended to one by one on a CPU where they have so many tokens on the average.
LEAST_DOCUMENT = 32


class Memory(NamedTuple):
    """What cross-attention reads: vectors (B, S, C), and how many of the S are not padding, (B,) (None: all)."""

    vectors_BSC: Tensor
    lengths_B: Tensor | None = None

    def repeat(self, n: int) -> Memory:
        """Each row n times, so that n hypotheses of one sentence can be decoded side by side."""
        lengths = self.lengths_B
        return Memory(
            self.vectors_BSC.repeat_interleave(n, dim=0), None if lengths is None else lengths.repeat_interleave(n)
        )

    def rows(self, rows: Tensor) -> Memory:
        """Some of the rows; `rows` (B') may repeat or drop them."""
        return Memory(self.vectors_BSC[rows], None if self.lengths_B is None else self.lengths_B[rows])


class _Heads(nn.Module):
    """What self- and cross-attention have in common.

    Args:
        n_embd: C. n_head: H. n_kv_head: K, a divisor of H. head_width: D.
        bias: biases on the projections. qkv_bias, out_bias: on query, key and value, and on the output.
        qk_norm: RMS-normalise q and k by a `head_norm`, which bounds the scores (Henry et al. 2020,
            https://arxiv.org/abs/2010.04245; Qwen3). qk_norm_over: each "head", or "all" together (OLMo 2,
            https://arxiv.org/abs/2501.00656).
        dropout: on weights (`weight_dropout`) and output.
        scale: factor of the scores; default 1 / sqrt(D) (T5 takes 1).
        softcap: scores s become c tanh(s / c), so that none exceeds c (Gemma 2, https://arxiv.org/abs/2408.00118).
        sinks: a learned score per head that takes part in the softmax and has no value, so that a head may attend to
            nothing (gpt-oss, https://arxiv.org/abs/2508.10925; Xiao et al. 2023, https://arxiv.org/abs/2309.17453).
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
        head_norm: type[RMSNorm] = RMSNorm,
        dropout: float = 0.0,
        scale: float | None = None,
        softcap: float | None = None,
        sinks: bool = False,
        qkv_bias: bool | None = None,
        out_bias: bool | None = None,
        qk_norm_over: str = "head",
    ):
        super().__init__()
        self.n_head, self.n_kv_head, self.head_width = n_head, n_kv_head, head_width
        self._make_projections(n_embd, bias if qkv_bias is None else qkv_bias)
        self.out = nn.Linear(n_head * head_width, n_embd, bias=bias if out_bias is None else out_bias)
        self.norms_each_head = qk_norm_over == "head"
        normed = (1, 1) if self.norms_each_head else (n_head, n_kv_head)
        self.query_norm = head_norm(normed[0] * head_width, eps=norm_eps) if qk_norm else None
        self.key_norm = head_norm(normed[1] * head_width, eps=norm_eps) if qk_norm else None
        self.sinks = nn.Parameter(torch.zeros(n_head)) if sinks else None
        self.scale = 1 / math.sqrt(head_width) if scale is None else scale
        self.softcap = softcap
        self.dropout = self.weight_dropout = dropout
        self.tap_query, self.tap_key, self.tap_value = Tap("query"), Tap("key"), Tap("value")
        self.tap_scores, self.tap_pattern, self.tap_heads = Tap("scores"), Tap("pattern"), Tap("heads")
        self.tap_output = Tap("output")

    def _make_projections(self, n_embd: int, bias: bool) -> None:
        """The matrices for query, key and value."""
        raise NotImplementedError

    @property
    def listened_to(self) -> bool:
        """Whether a tap reads the scores or the pattern, so that both must be there as matrices."""
        return self.tap_scores.listener is not None or self.tap_pattern.listener is not None

    def _by_head(self, x_BTC: Tensor, n_head: int) -> Tensor:
        """(B, T, n D) -> (B, n, T, D)."""
        B, T, _ = x_BTC.shape
        return x_BTC.view(B, T, n_head, self.head_width).transpose(1, 2)

    def _normed_by_head(self, x_BTC: Tensor, n_head: int, norm: nn.Module | None) -> Tensor:
        """Queries or keys (B, T, n D) -> (B, n, T, D), normed if there is a norm."""
        if norm is None:
            return self._by_head(x_BTC, n_head)
        if self.norms_each_head:
            return norm(self._by_head(x_BTC, n_head))  # type: ignore[no-any-return]
        return self._by_head(norm(x_BTC), n_head)

    def _out(self, y_BHTD: Tensor) -> Tensor:
        """The heads side by side through the output matrix: (B, H, T, D) -> (B, T, C)."""
        B, H, T, D = y_BHTD.shape
        y_BTC = self.out(self.tap_heads(y_BHTD).transpose(1, 2).reshape(B, T, H * D))
        return self.tap_output(F.dropout(y_BTC, self.dropout, self.training))

    def _attend(
        self,
        q_BHTD: Tensor,
        k_BKSD: Tensor,
        v_BKSD: Tensor,
        pos: Tensor,
        mask: Mask,
        positions: Positions | None = None,
    ) -> Tensor:
        """Choose the path, and the cheapest true form of the mask. Without `positions` there is no bias."""
        T, S = q_BHTD.shape[2], k_BKSD.shape[2]
        groups = self.n_head // self.n_kv_head
        listened_to = self.listened_to
        bias_of = None if positions is None else positions.bias
        unbiased = positions is None or type(positions).bias is Positions.bias
        if groups > 1 and T == 1 and unbiased and self.sinks is None and not listened_to:
            return self._one_token(q_BHTD, k_BKSD, v_BKSD, pos, mask)
        if T == S and not listened_to and isinstance(mask, And) and isinstance(mask.right, Documents):
            lengths = mask.right.lengths
            if lengths and LEAST_DOCUMENT * len(lengths) <= T:
                return self._by_document(q_BHTD, k_BKSD, v_BKSD, pos, mask.left, positions, lengths)
        eager = listened_to or self._prefers_eager(q_BHTD, S)
        local = not listened_to and pos.dim() == 1 and worth_chunking(mask, T, S)
        if groups > 1 and (local or eager or q_BHTD.device.type != "cpu"):  # PyTorch's kernel for CPUs needs no copies
            k_BKSD, v_BKSD = k_BKSD.repeat_interleave(groups, dim=1), v_BKSD.repeat_interleave(groups, dim=1)
        pos_k = torch.arange(S, device=pos.device) if S != T else pos
        if local:
            dropout = self.weight_dropout if self.training else 0.0
            if self.softcap is None and self.sinks is None and flex_supports(q_BHTD, pos, dropout=dropout):
                return attend_by_flex(q_BHTD, k_BKSD, v_BKSD, mask, bias=bias_of, scale=self.scale)
            attend = self._fused if self.softcap is None else self._eager
            return attend_locally(q_BHTD, k_BKSD, v_BKSD, pos, pos_k, mask, attend=attend, bias=bias_of)
        bias = None if bias_of is None else bias_of(pos, pos_k)  # (H, T, S) or (B, H, T, S)
        causal = isinstance(mask, Causal) and T == S and pos.shape != (1,)
        allowed: Tensor | str | None = "causal" if causal else self._matrix(mask, pos, pos_k)
        return (self._eager if eager else self._fused)(q_BHTD, k_BKSD, v_BKSD, allowed, bias)

    def _by_document(
        self,
        q_BHTD: Tensor,
        k_BKTD: Tensor,
        v_BKTD: Tensor,
        pos: Tensor,
        mask: Mask,
        positions: Positions | None,
        lengths: list[int],
    ) -> Tensor:
        """Documents that stand one behind the other, each by itself: nothing is computed to be masked."""
        parts = (x.split(lengths, dim=2) for x in (q_BHTD, k_BKTD, v_BKTD))
        documents = zip(*parts, pos.split(lengths, dim=-1), strict=True)
        return torch.cat([self._attend(q, k, v, own, mask, positions) for q, k, v, own in documents], dim=2)

    def _one_token(self, q_BHTD: Tensor, k_BKSD: Tensor, v_BKSD: Tensor, pos: Tensor, mask: Mask) -> Tensor:
        """The newest token of grouped heads: the queries of a group go to their key-value head as if they were so many
        tokens, so that the keys and values of a long past need not be repeated for each head."""
        B, H, T, D = q_BHTD.shape
        S = k_BKSD.shape[2]
        pos_k = pos if S == T else torch.arange(S, device=pos.device)
        allowed = self._matrix(mask, pos, pos_k)  # (1, S) or (B, 1, 1, S)
        q_BKGD = q_BHTD.reshape(B, self.n_kv_head, H // self.n_kv_head, D)
        attend = self._eager if self._prefers_eager(q_BHTD, S) else self._fused
        return attend(q_BKGD, k_BKSD, v_BKSD, allowed, None).reshape(B, H, T, D)

    def _matrix(self, mask: Mask, pos_q: Tensor, pos_k: Tensor) -> Tensor | None:
        """The mask as a matrix (T, S) or (B, 1, T, S); None where everything is seen."""
        newest = isinstance(mask, Causal) and pos_q.shape == (1,)  # it sees all that is cached
        if newest or isinstance(mask, Full):
            return None
        allowed = mask.mask(pos_q, pos_k)
        return allowed.unsqueeze(1) if allowed.dim() == 3 else allowed

    def _prefers_eager(self, q_BHTD: Tensor, n_keys: int) -> bool:
        return self.softcap is not None or (q_BHTD.device.type == "cpu" and n_keys <= EAGER_MAX_KEYS)

    def _eager(
        self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, allowed: Tensor | str | None, bias: Tensor | None
    ) -> Tensor:
        """Attention written out: scores, mask, softmax, weighted sum. A row that may see nothing gives zeros."""
        scores_BHTS = (q_BHTD * self.scale) @ k_BHSD.transpose(-2, -1)
        if bias is not None:
            scores_BHTS = scores_BHTS + bias
        if self.softcap is not None:
            scores_BHTS = self.softcap * torch.tanh(scores_BHTS / self.softcap)
        scores_BHTS = self.tap_scores(scores_BHTS)
        if isinstance(allowed, str):
            T = q_BHTD.shape[2]
            scores_BHTS = scores_BHTS + scores_BHTS.new_full((T, T), -math.inf).triu(1)
        elif allowed is not None:
            scores_BHTS = scores_BHTS.masked_fill(~allowed, -math.inf)
        pattern_BHTS = self._shares(scores_BHTS)
        if isinstance(allowed, Tensor):
            pattern_BHTS = pattern_BHTS.masked_fill(~allowed, 0.0)
        pattern_BHTS = F.dropout(self.tap_pattern(pattern_BHTS), self.weight_dropout, self.training)
        return pattern_BHTS @ v_BHSD

    def _shares(self, scores_BHTS: Tensor) -> Tensor:
        """Softmax over the keys; with sinks, the weight of the sink goes to no key."""
        if self.sinks is None:
            return scores_BHTS.softmax(dim=-1)
        B, H, T, _ = scores_BHTS.shape
        sinks = self.sinks.to(scores_BHTS.dtype).view(1, H, 1, 1).expand(B, H, T, 1)
        return torch.cat((scores_BHTS, sinks), dim=-1).softmax(dim=-1)[..., :-1]

    def _fused(
        self, q_BHTD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, allowed: Tensor | str | None, bias: Tensor | None
    ) -> Tensor:
        """The same by `scaled_dot_product_attention` (FlashAttention where the device has it)."""
        dropout = self.weight_dropout if self.training else 0.0
        if bias is None and self.sinks is None and not isinstance(allowed, Tensor):
            return F.scaled_dot_product_attention(
                q_BHTD,
                k_BHSD,
                v_BHSD,
                dropout_p=dropout,
                is_causal=allowed is not None,
                scale=self.scale,
                enable_gqa=q_BHTD.shape[1] != k_BHSD.shape[1],
            )
        if isinstance(allowed, str):
            T = q_BHTD.shape[2]
            allowed = torch.ones(T, T, dtype=torch.bool, device=q_BHTD.device).tril()
        return masked_attention(
            q_BHTD, k_BHSD, v_BHSD, allowed, bias, sinks=self.sinks, scale=self.scale, dropout=dropout
        )


class Attention(_Heads):
    """Self-attention over (B, T, C) with optional grouped heads; the arguments are those of `_Heads`.

    Query, key and value lie in one matrix, `qkv`, in this order.
    """

    def _make_projections(self, n_embd: int, bias: bool) -> None:
        self.qkv = nn.Linear(n_embd, sum(self.qkv_rows), bias=bias)

    @property
    def qkv_rows(self) -> tuple[int, int, int]:
        """How the rows of `qkv.weight` divide into query, key and value."""
        return self.n_head * self.head_width, self.n_kv_head * self.head_width, self.n_kv_head * self.head_width

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        mask: Mask,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
    ) -> Tensor:
        """(B, T, C) -> (B, T, C). `pos` (T,) or (B, T) are the positions of x; with a cache, keys go back to 0."""
        q, k, v = self.qkv(x_BTC).split(self.qkv_rows, dim=-1)
        q_BHTD = self._normed_by_head(q, self.n_head, self.query_norm)
        k_BKTD = self._normed_by_head(k, self.n_kv_head, self.key_norm)
        v_BKTD = self._by_head(v, self.n_kv_head)
        q_BHTD, k_BKTD = positions.rotate(q_BHTD, k_BKTD, pos)
        q_BHTD, k_BKTD, v_BKTD = self.tap_query(q_BHTD), self.tap_key(k_BKTD), self.tap_value(v_BKTD)
        if cache is not None:
            k_BKTD, v_BKTD = cache.append(layer, k_BKTD, v_BKTD)  # (B, K, S, D)
        return self._out(self._attend(q_BHTD, k_BKTD, v_BKTD, pos, mask, positions))


class CrossAttention(_Heads):
    """Queries from x (B, T, C), keys and values from a memory (B, S, C); the arguments are those of `_Heads`.

    Positions play no part: those of x and of the memory are unrelated.
    """

    def _make_projections(self, n_embd: int, bias: bool) -> None:
        self.query = nn.Linear(n_embd, self.n_head * self.head_width, bias=bias)
        self.key_value = nn.Linear(n_embd, 2 * self.n_kv_head * self.head_width, bias=bias)

    def forward(self, x_BTC: Tensor, memory: Memory, cache: KVCache | Rows | None = None, layer: int = 0) -> Tensor:
        """(B, T, C) -> (B, T, C). With a cache, keys and values of the memory are computed once and kept there."""
        T = x_BTC.shape[1]
        q_BHTD = self._normed_by_head(self.query(x_BTC), self.n_head, self.query_norm)
        known = None if cache is None else cache.crossed.get(layer)
        if known is None:
            k, v = self.key_value(memory.vectors_BSC).chunk(2, dim=-1)
            k_BKSD = self._normed_by_head(k, self.n_kv_head, self.key_norm)
            v_BKSD = self._by_head(v, self.n_kv_head)
            if cache is not None:
                cache.crossed[layer] = k_BKSD, v_BKSD
        else:
            k_BKSD, v_BKSD = known
        q_BHTD, k_BKSD, v_BKSD = self.tap_query(q_BHTD), self.tap_key(k_BKSD), self.tap_value(v_BKSD)
        mask = Full() if memory.lengths_B is None else PaddingMask(memory.lengths_B)
        pos = torch.arange(T, device=x_BTC.device)
        return self._out(self._attend(q_BHTD, k_BKSD, v_BKSD, pos, mask))
