"""The block: attention, then feed-forward; both add to the residual stream.

    x ───────────┬──────────────────► + ───────────┬────────────────────► + ───► x
    (before)     └► norm ► attention ─┘ (middle)   └► norm ► feed-forward ─┘ (after)

Blocks differ in where the norms of a layer stand:

    Block            x + Layer(Norm(x))         pre-norm, the stream is a straight path for gradients
                                                (Xiong et al. 2020, https://arxiv.org/abs/2002.04745)
    PostNormBlock    Norm(x + Layer(x))         the Transformer of 2017 and BERT
    SandwichBlock    x + Norm(Layer(Norm(x)))   Gemma 3 (https://arxiv.org/abs/2503.19786, sect. 2; Ding et al. 2021,
                                                https://arxiv.org/abs/2105.13290)
    OutputNormBlock  x + Norm(Layer(x))         OLMo 2 (https://arxiv.org/abs/2501.00656, sect. 3.2.1)
    ParallelBlock    x + Attention(Norm(x)) + FeedForward(Norm(x))    GPT-NeoX (Black et al. 2022,
                                                https://arxiv.org/abs/2204.06745, sect. 2.1)

The decoder of an encoder-decoder has cross-attention between the two layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from glassformer.layers.attention import Memory
from glassformer.layers.cache import KVCache
from glassformer.layers.masks import Mask
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
        self.tap_before, self.tap_middle = Tap("residual.before"), Tap("residual.middle")
        self.tap_after = Tap("residual.after")

    def norms(self, kind: str) -> LayerNorms:
        """The norms around one layer. kind: "attention", "cross_attention" or "feedforward"."""
        return LayerNorms(before=self._norm(kind))

    def _norm(self, kind: str, place: str = "") -> nn.Module:
        return getattr(self, f"{kind.replace('cross_attention', 'cross')}_norm{place}")  # type: ignore[no-any-return]

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        mask: Mask,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        """`memory`: what the cross-attention, if there is one, reads."""
        x_BTC = self.tap_before(x_BTC)
        x_BTC = self.add("attention", x_BTC, lambda x: self.attention(x, pos, positions, mask, cache, layer))
        x_BTC = self.tap_middle(x_BTC)
        if self.crosses:
            x_BTC = self.add("cross_attention", x_BTC, lambda x: self.cross_attention(x, memory, cache, layer))
        return self.tap_after(self.add("feedforward", x_BTC, self.feedforward))

    def add(self, kind: str, x_BTC: Tensor, layer: Callable[[Tensor], Tensor]) -> Tensor:
        """The stream with what a layer adds to it, through the norms of this kind of block."""
        before, behind, of_sum = self.norms(kind)
        y_BTC = layer(x_BTC if before is None else before(x_BTC))
        x_BTC = x_BTC + (y_BTC if behind is None else behind(y_BTC))
        return x_BTC if of_sum is None else of_sum(x_BTC)


class PostNormBlock(Block):
    """Norm(x + Layer(x)), as in Vaswani et al. 2017, sect. 3.1."""

    def norms(self, kind: str) -> LayerNorms:
        return LayerNorms(of_sum=self._norm(kind))


class SandwichBlock(Block):
    """x + Norm(Layer(Norm(x))).

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


class OutputNormBlock(Block):
    """x + Norm(Layer(x))."""

    def norms(self, kind: str) -> LayerNorms:
        return LayerNorms(behind=self._norm(kind))


class ParallelBlock(Block):
    """x + Attention(Norm(x)) + FeedForward(Norm(x)), without cross-attention.

    `residual.middle` is the stream with attention's part, which here nothing reads before the feed-forward's is added.
    """

    def forward(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        positions: Positions,
        mask: Mask,
        cache: KVCache | Rows | None = None,
        layer: int = 0,
        memory: Memory | None = None,
    ) -> Tensor:
        x_BTC = self.tap_before(x_BTC)
        read_BTC = self.attention(self.attention_norm(x_BTC), pos, positions, mask, cache, layer)
        middle_BTC = self.tap_middle(x_BTC + read_BTC)
        return self.tap_after(middle_BTC + self.feedforward(self.feedforward_norm(x_BTC)))
