"""The text stem: a table with one row a token, plus where it stands."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class TextStem(nn.Module):
    """Token ids (B, T) -> vectors (B, T, C): look up, add the position, drop out."""

    def __init__(self, *, vocab_size: int, n_embd: int, dropout: float = 0.0):
        super().__init__()
        self.token = nn.Embedding(vocab_size, n_embd)
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def forward(self, ids_BT: Tensor, pos: Tensor, positions: Positions) -> Tensor:
        x_BTC = self.tap_token(self.token(ids_BT))
        x_BTC = self.tap_position(positions.add(x_BTC, pos))
        return F.dropout(x_BTC, self.dropout, self.training)
