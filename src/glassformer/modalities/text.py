"""The text stem: a table with one row a token, plus where it stands; if asked, also rows for the last few tokens."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class TextStem(nn.Module):
    """Token ids (B, T) -> vectors (B, T, C): look up, add what the n-grams say and the position, drop out.

    n_gram: 1 looks at each token by itself; n adds `NGrams` of 2 to n tokens.
    """

    def __init__(self, *, vocab_size: int, n_embd: int, n_gram: int = 1, n_gram_rows: int = 1, dropout: float = 0.0):
        super().__init__()
        self.token = nn.Embedding(vocab_size, n_embd)
        self.n_grams = NGrams(n=n_gram, rows=n_gram_rows, vocab_size=vocab_size, n_embd=n_embd) if n_gram > 1 else None
        self.dropout = dropout
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def forward(self, ids_BT: Tensor, pos: Tensor, positions: Positions, before_BP: Tensor | None = None) -> Tensor:
        """`before` (B, P): the tokens that stand before `ids` in the text, where a cache remembers them."""
        x_BTC = self.tap_token(self.token(ids_BT))
        if self.n_grams is not None:
            x_BTC = x_BTC + self.n_grams(ids_BT, before_BP)
        x_BTC = self.tap_position(positions.add(x_BTC, pos))
        return F.dropout(x_BTC, self.dropout, self.training)


class NGrams(nn.Module):
    """One vector for the last two tokens, one for the last three, ... one for the last n: (B, T) -> (B, T, C), summed.

        t h e _ c a t          2-grams  th he e_ _c ca at
              ^                3-grams     the he_ e_c _ca cat
        adds rows[e_], rows[he_], rows[the_]

    What a count table of n-grams knows, a Transformer otherwise spends its first layers and first steps on. It costs
    memory and hardly any arithmetic. Each length has a table of `rows` rows at most; where there are more n-grams than
    rows, several share one, by a hash (as in fastText: Bojanowski et al. 2016, https://arxiv.org/abs/1607.04606; in
    language models: Huang et al. 2025, Over-Tokenized Transformer, https://arxiv.org/abs/2501.16975). `before` (B, P)
    are the tokens before `ids`; what stands before these counts as one more symbol, nothing.
    """

    # Fibonacci hashing (Knuth, vol. 3, 6.4): 2^64 / golden ratio; the low bits are the worst mixed and are dropped
    MULTIPLIER, SHIFT = -7046029254386353131, 24

    def __init__(self, *, n: int, rows: int, vocab_size: int, n_embd: int):
        super().__init__()
        self.base = vocab_size + 1  # the last number stands for the nothing before the text
        self.rows = [min(rows, self.base**length) for length in range(2, n + 1)]
        self.tables = nn.ModuleList(nn.Embedding(n_rows, n_embd) for n_rows in self.rows)
        self.tap_sum = Tap("sum")

    def forward(self, ids_BT: Tensor, before_BP: Tensor | None = None) -> Tensor:
        T, reach = ids_BT.shape[1], len(self.tables)
        ids_BS = ids_BT if before_BP is None else torch.cat((before_BP, ids_BT), dim=1)
        ids_BS = F.pad(ids_BS, (reach + T - ids_BS.shape[1], 0), value=self.base - 1)  # (B, reach + T)
        numbers_BT, found = ids_BT, []
        for length, table in enumerate(self.tables, 2):
            start = reach + 1 - length
            numbers_BT = numbers_BT * self.base + ids_BS[:, start : start + T]
            found.append(table(self._row(numbers_BT, length)))  # (B, T, C)
        return self.tap_sum(sum(found[1:], found[0]))

    def _row(self, numbers: Tensor, length: int) -> Tensor:
        """Which row an n-gram has: its own number where all have room, else a hash of it (int64 wraps around)."""
        rows = self.rows[length - 2]
        return numbers if self.base**length <= rows else ((numbers * self.MULTIPLIER) >> self.SHIFT) % rows
