"""The stem of discretised frames: a step is a group of frames, and each band of each frame is one of a few levels. A
step's vector is the sum of a row for each (Bai et al. 2024, https://arxiv.org/abs/2407.15835, sect. 2.2, where the
channels of one frame share a table).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class FrameLevelStem(nn.Module):
    """Levels (B, T, frames x bands) of the steps before -> vectors (B, T, C). The first step, before which there is
    none, has a vector of its own.

    step_dropout: in training, this share of the steps is not read, so that the text must be (Wang et al. 2017,
    https://arxiv.org/abs/1703.10135, sect. 3.2, drop half of what is read).
    """

    def __init__(self, *, n_values: int, n_levels: int, n_embd: int, dropout: float = 0.0):
        super().__init__()
        self.token = nn.Embedding(n_values * n_levels, n_embd)
        self.start = nn.Parameter(torch.zeros(n_embd))
        self.n_levels, self.dropout, self.step_dropout = n_levels, dropout, 0.0
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def init_levels(self) -> None:
        """Draw the table so that neighbouring levels have neighbouring rows, and a sum of many is of length one."""
        N, L, C = len(self.token.weight) // self.n_levels, self.n_levels, self.token.weight.shape[1]
        slopes_N1C = torch.randn(N, 1, C) * (1.5 / N) ** 0.5
        noise_NLC = torch.randn(N, L, C) * (0.1 / N) ** 0.5
        with torch.no_grad():
            self.token.weight.copy_((slopes_N1C * torch.linspace(-1, 1, L)[:, None] + noise_NLC).flatten(0, 1))
            self.start.normal_(std=0.5)

    def forward(self, levels_BTN: Tensor, pos: Tensor, positions: Positions) -> Tensor:
        """`levels_BTN`: of the step before each. Where `pos` is 0 they are not looked at."""
        B, T, N = levels_BTN.shape
        rows_BTN = levels_BTN.long() + torch.arange(N, device=levels_BTN.device) * self.n_levels
        x_BTC = F.embedding_bag(rows_BTN.view(B * T, N), self.token.weight, mode="sum").view(B, T, -1)
        if self.training and self.step_dropout > 0:
            x_BTC = x_BTC * (torch.rand(B, T, 1, device=x_BTC.device) >= self.step_dropout)
        x_BTC = torch.where((pos == 0)[:, None], self.start, x_BTC)
        x_BTC = self.tap_position(positions.add(self.tap_token(x_BTC), pos))
        return F.dropout(x_BTC, self.dropout, self.training)
