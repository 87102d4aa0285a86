"""The block: communicate, then compute; both write into the residual stream by addition.

    x ───────────┬──────────────────► + ───────────┬────────────────────► + ───► x
    (before)     └► norm ► attention ─┘ (middle)   └► norm ► feed-forward ─┘ (after)

The norm stands before each layer (pre-norm: Xiong et al. 2020, https://arxiv.org/abs/2002.04745), so that the stream
itself is a straight road for gradients from the loss to the embedding.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassformer.layers.cache import KVCache
from glassformer.layers.patterns import Pattern
from glassformer.layers.positions import Positions
from glassformer.taps import Tap


class Block(nn.Module):
    """One Transformer block, put together from the parts it is given. (B, T, C) -> (B, T, C)."""

    def __init__(
        self, attention_norm: nn.Module, attention: nn.Module, feedforward_norm: nn.Module, feedforward: nn.Module
    ):
        super().__init__()
        self.attention_norm, self.attention = attention_norm, attention
        self.feedforward_norm, self.feedforward = feedforward_norm, feedforward
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
        cache: KVCache | None = None,
        layer: int = 0,
    ) -> Tensor:
        x_BTC = self.tap_before(x_BTC)
        x_BTC = x_BTC + self.attention(self.attention_norm(x_BTC), pos, positions, pattern, cache, layer)
        x_BTC = self.tap_middle(x_BTC)
        x_BTC = x_BTC + self.feedforward(self.feedforward_norm(x_BTC))
        return self.tap_after(x_BTC)
