"""The block: communicate, then compute; both write into the residual stream by addition.

    x ───────────┬──────────────────► + ───────────┬────────────────────► + ───► x
    (before)     └► norm ► attention ─┘ (middle)   └► norm ► feed-forward ─┘ (after)

The norm stands before each layer (pre-norm: Xiong et al. 2020, https://arxiv.org/abs/2002.04745), so that the stream
itself is a straight road for gradients from the loss to the embedding. In 2017 and in BERT it stood behind (post-norm):

    x ─┬───────────► + ► norm ─┬──────────────► + ► norm ───► x
       └► attention ─┘         └► feed-forward ─┘

Gemma 3 has both (https://arxiv.org/abs/2503.19786, sect. 2): what a layer reads is normed, and what it says is normed
before it is added. The stream is as straight as in the first drawing, and no layer can shout (a sandwich, as Ding et
al. 2021 call it, https://arxiv.org/abs/2105.13290):

    x ─┬──────────────────────────► + ─┬─────────────────────────────► + ───► x
       └► norm ► attention ► norm ─┘   └► norm ► feed-forward ► norm ─┘

OLMo 2 keeps the second of these norms alone (https://arxiv.org/abs/2501.00656, sect. 3.2.1): a layer reads the stream
as it is, and what it writes is normed:

    x ─┬────────────────────► + ─┬───────────────────────► + ───► x
       └► attention ► norm ─┘   └► feed-forward ► norm ─┘

GPT-NeoX and Pythia let both layers read the same stream, so that they can be computed at once (parallel residual;
Black et al. 2022, https://arxiv.org/abs/2204.06745, sect. 2.1):

    x ─┬──────────────────► + ───────────────────────► + ───► x
       ├► norm ► attention ─┘                          │
       └► norm ► feed-forward ─────────────────────────┘

A decoder that listens to an encoder has cross-attention between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from glassformer.layers.attention import Memory
from glassformer.layers.cache import KVCache
from glassformer.layers.patterns import Pattern
from glassformer.layers.positions import Positions
from glassformer.layers.row_cache import Rows
from glassformer.taps import Tap


class LayerNorms(NamedTuple):
    """The norms around one layer of a block; None where there is none.

    before: on what the layer reads. behind: on what it writes, before that is added. of_sum: on the stream after that.
    """

    before: nn.Module | None = None
    behind: nn.Module | None = None
    of_sum: nn.Module | None = None


class Block(nn.Module):
    """One Transformer block, put together from the parts it is given. (B, T, C) -> (B, T, C)."""

    def __init__(
        self,
        attention_norm: nn.Module,
        attention: nn.Module,
        feedforward_norm: nn.Module,
        feedforward: nn.Module,
        cross_norm: nn.Module | None = None,
        cross_attention: nn.Module | None = None,
    ):
        super().__init__()
        self.attention_norm, self.attention = attention_norm, attention
        if cross_norm is not None and cross_attention is not None:
            self.cross_norm, self.cross_attention = cross_norm, cross_attention
        self.feedforward_norm, self.feedforward = feedforward_norm, feedforward
        self.crosses = cross_attention is not None
        self.tap_before, self.tap_middle, self.tap_after = (
            Tap("residual.before"),
            Tap("residual.middle"),
            Tap("residual.after"),
        )

    def norms(self, kind: str) -> LayerNorms:
        """The norms around one layer. kind: "attention", "cross_attention" or "feedforward"."""
        return LayerNorms(before=self._norm(kind))

    def _norm(self, kind: str, place: str = "") -> nn.Module:
        return self.get_submodule(f"{kind.replace('cross_attention', 'cross')}_norm{place}")

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        pattern: Pattern,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        """`memory`: what the cross-attention, if there is one, listens to."""
        x_BTC = self.tap_before(x_BTC)
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), pos, positions, pattern, cache, layer)
        x_BTC = self.tap_middle(x_BTC)
        if self.crosses:
            x_BTC = x_BTC + self.cross_attention(self.cross_norm(x_BTC), memory, cache, layer)
        x_BTC = x_BTC + self.feedforward(self.feedforward_norm(x_BTC))
        return self.tap_after(x_BTC)


class PostNormBlock(Block):
    """The same parts in the order of Vaswani et al. 2017, sect. 3.1: LayerNorm(x + Sublayer(x))."""

    def norms(self, kind: str) -> LayerNorms:
        return LayerNorms(of_sum=self._norm(kind))

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        pattern: Pattern,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        x_BTC = self.tap_before(x_BTC)
        x_BTC = self.attention_norm(x_BTC + self.attention(x_BTC, pos, positions, pattern, cache, layer))
        x_BTC = self.tap_middle(x_BTC)
        if self.crosses:
            x_BTC = self.cross_norm(x_BTC + self.cross_attention(x_BTC, memory, cache, layer))
        x_BTC = self.feedforward_norm(x_BTC + self.feedforward(x_BTC))
        return self.tap_after(x_BTC)


class SandwichBlock(Block):
    """The same parts with one more norm behind each layer: x + Norm(Sublayer(Norm(x))).

    Args:
        parts: those of `Block`, in its order.
        after: the norms behind attention, feed-forward and, if there is any, cross-attention.
    """

    def __init__(self, *parts: nn.Module, after: Sequence[nn.Module]):
        super().__init__(*parts)
        self.attention_norm_after, self.feedforward_norm_after = after[:2]
        if self.crosses:
            self.cross_norm_after = after[2]

    def norms(self, kind: str) -> LayerNorms:
        return LayerNorms(before=self._norm(kind), behind=self._norm(kind, "_after"))

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        pattern: Pattern,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        x_BTC = self.tap_before(x_BTC)
        said_BTC = self.attention(self.attention_norm(x_BTC), pos, positions, pattern, cache, layer)
        x_BTC = self.tap_middle(x_BTC + self.attention_norm_after(said_BTC))
        if self.crosses:
            said_BTC = self.cross_attention(self.cross_norm(x_BTC), memory, cache, layer)
            x_BTC = x_BTC + self.cross_norm_after(said_BTC)
        said_BTC = self.feedforward(self.feedforward_norm(x_BTC))
        return self.tap_after(x_BTC + self.feedforward_norm_after(said_BTC))


class OutputNormBlock(Block):
    """The same parts with each norm on what its layer writes: x + Norm(Sublayer(x))."""

    def norms(self, kind: str) -> LayerNorms:
        return LayerNorms(behind=self._norm(kind))

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        pattern: Pattern,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        x_BTC = self.tap_before(x_BTC)
        x_BTC = x_BTC + self.attention_norm(self.attention(x_BTC, pos, positions, pattern, cache, layer))
        x_BTC = self.tap_middle(x_BTC)
        if self.crosses:
            x_BTC = x_BTC + self.cross_norm(self.cross_attention(x_BTC, memory, cache, layer))
        x_BTC = x_BTC + self.feedforward_norm(self.feedforward(x_BTC))
        return self.tap_after(x_BTC)


class ParallelBlock(Block):
    """The same parts side by side: x + Attention(Norm(x)) + FeedForward(Norm(x)). It has no cross-attention.

    `residual.middle` is the stream with attention's part, which here nothing reads before the feed-forward's is added.
    """

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        pattern: Pattern,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        x_BTC = self.tap_before(x_BTC)
        written_BTC = self.attention(self.attention_norm(x_BTC), pos, positions, pattern, cache, layer)
        middle_BTC = self.tap_middle(x_BTC + written_BTC)
        return self.tap_after(middle_BTC + self.feedforward(self.feedforward_norm(x_BTC)))
