"""The stem of trajectories: three tokens a step, a return-to-go, a state and an action, each through its own linear
layer; a table of timesteps is added to all three.

    step       0          1          2
    tokens     R0 s0 a0   R1 s1 a1   R2 s2 ...

Chen et al. 2021, https://arxiv.org/abs/2106.01345, section 3 and algorithm 1.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap

KINDS = ("return", "state", "action")


class TripleStem(nn.Module):
    """Returns (B, K), states (B, K, S), actions (B, K, A) and timesteps (B, K) -> vectors (B, 3 K, C)."""

    def __init__(
        self, *, state_size: int, action_size: int, max_timestep: int, n_embd: int, norm: nn.Module | None = None,
        dropout: float = 0.0,
    ):  # fmt: skip
        super().__init__()
        self.timestep = nn.Embedding(max_timestep, n_embd)
        self.read_return = nn.Linear(1, n_embd)
        self.read_state = nn.Linear(state_size, n_embd)
        self.read_action = nn.Linear(action_size, n_embd)
        self.norm = norm
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def forward(
        self, returns_BK: Tensor, states_BKS: Tensor, actions_BKA: Tensor, timesteps_BK: Tensor,
        pos: Tensor, positions: Positions, *, first: int = 0,
    ) -> Tensor:  # fmt: skip
        """The vectors of the tokens at positions `pos`, (B, T, C). The last action may be missing: it is asked for.

        first: how many tokens of the first step are left out, since a cache holds them.
        """
        B, K = timesteps_BK.shape
        if actions_BKA.shape[1] < K:
            actions_BKA = F.pad(actions_BKA, (0, 0, 0, 1))
        parts = self.read_return(returns_BK[..., None]), self.read_state(states_BKS), self.read_action(actions_BKA)
        x_BKC = self.tap_token(torch.stack(parts, dim=2).flatten(1, 2))
        x_BTC = x_BKC + self.timestep(timesteps_BK).repeat_interleave(len(KINDS), dim=1)
        if self.norm is not None:
            x_BTC = self.norm(x_BTC)
        x_BTC = x_BTC[:, first : first + len(pos)]
        return F.dropout(self.tap_position(positions.add(x_BTC, pos)), self.dropout, self.training)
