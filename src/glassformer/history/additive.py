"""Additive attention: how well does each word of the source fit the word to write next?

Bahdanau, Cho and Bengio 2014, https://arxiv.org/abs/1409.0473, sect. 3.1, eq. 5 and 6:

    e_ij = v . tanh(W s_i-1 + U h_j)        alpha_ij = softmax over j of e_ij        c_i = sum over j of alpha_ij h_j

The Transformer's attention keeps all of it but the score: a dot product of query and key in the place of the small
network, so that all scores are one matrix product.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassformer.taps import Tap


class AdditiveAttention(nn.Module):
    """Queries (B, T, Q) and what was read (B, S, C) -> weighted sums (B, T, C). `width`: of the scoring layer.

    Its tap `pattern` sees the weights, (B, T, S); a decoder asks with T = 1, once for each token that it writes.
    """

    def __init__(self, query_width: int, memory_width: int, width: int):
        super().__init__()
        self.query = nn.Linear(query_width, width, bias=False)  # W
        self.key = nn.Linear(memory_width, width, bias=False)  # U
        self.score = nn.Linear(width, 1, bias=False)  # v
        self.tap_pattern = Tap("pattern")

    def keys(self, memory_BSC: Tensor) -> Tensor:
        """U h_j, the same for every query: (B, S, C) -> (B, S, A)."""
        return self.key(memory_BSC)

    def forward(self, query_BTQ: Tensor, keys_BSA: Tensor, memory_BSC: Tensor, lengths_B: Tensor) -> Tensor:
        """`keys`: from `keys`; `lengths` (B,): positions after them are padding, and gets no weight."""
        B, S, _ = keys_BSA.shape
        hidden_BTSA = torch.tanh(self.query(query_BTQ)[:, :, None] + keys_BSA[:, None])
        scores_BTS = self.score(hidden_BTSA).squeeze(-1)
        padding_BS = torch.arange(S, device=lengths_B.device) >= lengths_B[:, None]
        weights_BTS = scores_BTS.masked_fill(padding_BS[:, None], -torch.inf).softmax(dim=-1)
        return self.tap_pattern(weights_BTS) @ memory_BSC
