"""The stem of sets: what each member is, and its numbers. Nothing here knows an order.

Gorishniy et al. 2021, https://arxiv.org/abs/2106.11959, sect. 3.3: a column's vector, plus its number times a vector of
that column, or a row for its word.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class SetStem(nn.Module):
    """Ids (B, T, F) and numbers (B, T, I) of the members of a set -> vectors (B, T, C).

    The rows of a member's ids are added up: what kind of member it is, which word it holds; id 0 is the row of "nothing
    here". A linear layer reads its numbers: those of other kinds of member are 0, so that each kind has its own columns
    of the matrix.
    """

    def __init__(self, *, vocab_size: int, n_inputs: int, n_embd: int, dropout: float = 0.0):
        super().__init__()
        self.token = nn.Embedding(vocab_size, n_embd)
        self.read_in = nn.Linear(n_inputs, n_embd, bias=False) if n_inputs else None
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def n_tokens(self, ids_BTF: Tensor) -> int:
        """T, the members of the largest set."""
        return ids_BTF.shape[1]

    def forward(self, ids_BTF: Tensor, pos: Tensor, positions: Positions, numbers_BTI: Tensor | None = None) -> Tensor:
        """`numbers`: of the members, where the stem reads some."""
        x_BTC = self.token(ids_BTF).sum(dim=2)
        if self.read_in is not None and numbers_BTI is not None:
            x_BTC = x_BTC + self.read_in(numbers_BTI.to(self.read_in.weight.dtype))
        x_BTC = self.tap_position(positions.add(self.tap_token(x_BTC), pos))
        return F.dropout(x_BTC, self.dropout, self.training)
