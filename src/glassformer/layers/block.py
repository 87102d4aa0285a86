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

A decoder that listens to an encoder has cross-attention between the two.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from glassformer.layers.attention import Memory
from glassformer.layers.cache import KVCache
from glassformer.layers.patterns import Pattern
from glassformer.layers.positions import Positions
from glassformer.layers.row_cache import Rows
from glassformer.taps import Tap


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
