"""The stem of vectors: numbers come in, and one linear layer reads them.

Garg et al. 2022, https://arxiv.org/abs/2208.01066, sect. 2: "a learnable linear transformation".
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class VectorStem(nn.Module):
    """Vectors (B, T, inputs) -> vectors (B, T, C)."""

    def __init__(self, *, n_inputs: int, n_embd: int, dropout: float = 0.0):
        super().__init__()
        self.read_in = nn.Linear(n_inputs, n_embd)
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def n_tokens(self, vectors: Tensor) -> int:
        """T."""
        return vectors.shape[1]

    def forward(self, vectors: Tensor, pos: Tensor, positions: Positions) -> Tensor:
        x_BTC = self.tap_position(positions.add(self.tap_token(self.read_in(vectors)), pos))
        return F.dropout(x_BTC, self.dropout, self.training)
