"""The text stem: a table with one row a token, plus where it stands; if asked, also what the last few tokens were."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.layers import Positions
from glassformer.taps import Tap


class TextStem(nn.Module):
    """Token ids (B, T) -> vectors (B, T, C): look up, add n-gram and position vectors, drop out.

    n_gram: 1 looks at each token by itself; n adds `NGrams` of up to n tokens. token_dropout: in training, this share
    of the tokens is read as another one, taken from elsewhere in the batch, so that no single token can be relied upon
    (unigram noising: Xie et al. 2017, https://arxiv.org/abs/1703.02573). scale: what rows are multiplied with (2017:
    sqrt(C)). n_segments: rows for the first and the second text (BERT). norm: what everything goes through.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        n_embd: int,
        n_gram: int = 1,
        n_gram_rows: int = 0,
        n_segments: int = 0,
        scale: float = 1.0,
        norm: nn.Module | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.token = nn.Embedding(vocab_size, n_embd)
        self.segment = nn.Embedding(n_segments, n_embd) if n_segments else None
        self.norm, self.scale = norm, scale
        self.n_grams = NGrams(n=n_gram, rows=n_gram_rows, vocab_size=vocab_size, n_embd=n_embd) if n_gram > 1 else None
        self.dropout, self.token_dropout = dropout, 0.0
        self.tap_token, self.tap_position = Tap("token"), Tap("position")

    def n_tokens(self, ids_BT: Tensor) -> int:
        """T."""
        return ids_BT.shape[1]

    def forward(
        self,
        ids_BT: Tensor,
        pos: Tensor,
        positions: Positions,
        before_BP: Tensor | None = None,
        segments_BT: Tensor | None = None,
    ) -> Tensor:
        """`before` (B, P): the tokens that stand before `ids` in the text, where a cache remembers them. `segments`
        (B, T): of each token, where the stem has some; left out, all are of the first."""
        if self.training and self.token_dropout > 0:
            ids_BT = self._noised(ids_BT)
        x_BTC = self.tap_token(self.token(ids_BT))
        if self.scale != 1:
            x_BTC = x_BTC * self.scale
        if self.n_grams is not None:
            x_BTC = x_BTC + self.n_grams(ids_BT, before_BP)
        if self.segment is not None:
            x_BTC = x_BTC + (self.segment.weight[0] if segments_BT is None else self.segment(segments_BT))
        x_BTC = self.tap_position(positions.add(x_BTC, pos))
        if self.norm is not None:
            x_BTC = self.norm(x_BTC)
        return F.dropout(x_BTC, self.dropout, self.training)

    def _noised(self, ids_BT: Tensor) -> Tensor:
        others_BT = ids_BT.flatten()[torch.randint(ids_BT.numel(), ids_BT.shape, device=ids_BT.device)]
        return torch.where(torch.rand(ids_BT.shape, device=ids_BT.device) < self.token_dropout, others_BT, ids_BT)


class NGrams(nn.Module):
    """What the last n tokens were, each by itself and, with `rows`, together: (B, T) -> (B, T, C), all summed.

        t h e _ c a t     back     one table a distance:   _ is 1 back, e is 2 back, h is 3 back
                ^         joint    one table a length:     _c, e_c, he_c

    It costs memory and hardly any arithmetic, and a Transformer otherwise spends its first layer on looking one, two,
    three tokens back, and its first hundred steps on learning it. The tables `back` are a causal convolution over
    one-hot tokens. The tables `joint` know what a count of n-grams knows, and learn a small text by heart as fast. They
    have at most `rows` rows each; where there are more n-grams, several share a row by a hash (as in fastText:
    Bojanowski et al. 2016, https://arxiv.org/abs/1607.04606; in language models: Huang et al. 2025,
    https://arxiv.org/abs/2501.16975). What stands before the text counts as one more token.
    """

    # Fibonacci hashing (Knuth, vol. 3, 6.4): 2^64 / golden ratio; the low bits are the worst mixed and are dropped
    MULTIPLIER, SHIFT = -7046029254386353131, 24

    def __init__(self, *, n: int, rows: int, vocab_size: int, n_embd: int):
        super().__init__()
        self.base = vocab_size + 1  # the last number stands for the nothing before the text
        self.rows = [min(rows, self.base**length) for length in range(2, n + 1)] if rows else []
        self.back = nn.ModuleList(nn.Embedding(self.base, n_embd) for _ in range(1, n))
        self.joint = nn.ModuleList(nn.Embedding(n_rows, n_embd) for n_rows in self.rows)
        self.tap_sum = Tap("sum")

    def forward(self, ids_BT: Tensor, before_BP: Tensor | None = None) -> Tensor:
        """`before` (B, P): the tokens before `ids`; more than n - 1 are not looked at."""
        T, reach = ids_BT.shape[1], len(self.back)
        ids_BS = ids_BT if before_BP is None else torch.cat((before_BP, ids_BT), dim=1)
        ids_BS = F.pad(ids_BS, (reach + T - ids_BS.shape[1], 0), value=self.base - 1)  # (B, reach + T)
        shifted_BT = [ids_BS[:, reach - distance : reach - distance + T] for distance in range(1, reach + 1)]
        found = [table(ids) for table, ids in zip(self.back, shifted_BT, strict=True)]  # (B, T, C) each
        numbers_BT = ids_BT
        for table, rows, ids, length in zip(self.joint, self.rows, shifted_BT, range(2, reach + 2), strict=False):
            numbers_BT = numbers_BT * self.base + ids
            found.append(table(numbers_BT if self.base**length <= rows else self._hash(numbers_BT, rows)))
        return self.tap_sum(sum(found[1:], found[0]))

    def _hash(self, numbers: Tensor, rows: int) -> Tensor:
        """0 ... rows - 1; the products wrap around in int64."""
        return ((numbers * self.MULTIPLIER) >> self.SHIFT) % rows
