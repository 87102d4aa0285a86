"""The sound stem: log-mel frames through two convolutions, and the second halves their number.

Radford et al. 2022 (Whisper), https://arxiv.org/abs/2212.04356, sect. 2.2.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class FrameStem(nn.Module):
    """Frames (B, mels, F) -> vectors (B, ceil(F / 2), C)."""

    def __init__(self, *, n_mels: int, n_embd: int, dropout: float = 0.0):
        super().__init__()
        self.first = nn.Conv1d(n_mels, n_embd, kernel_size=3, padding=1)
        self.second = nn.Conv1d(n_embd, n_embd, kernel_size=3, stride=2, padding=1)
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def n_tokens(self, frames: Tensor) -> int:
        """How many vectors come out."""
        return -(-frames.shape[-1] // 2)

    def forward(self, frames: Tensor, pos: Tensor, positions: Positions) -> Tensor:
        x_BCT = F.gelu(self.second(F.gelu(self.first(frames))))
        x_BTC = self.tap_position(positions.add(self.tap_token(x_BCT.transpose(1, 2)), pos))
        return F.dropout(x_BTC, self.dropout, self.training)
