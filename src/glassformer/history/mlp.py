"""The neural probabilistic language model: the last few words as vectors, side by side, through one hidden layer.

Bengio, Ducharme, Vincent and Jauvin 2003, "A neural probabilistic language model", JMLR 3, sect. 2, eq. 1:

    the  cat  sat            x = C(w_t-2), C(w_t-1), C(w_t)     one table C for all places
     |    |    |
     C    C    C  ──► x ──► tanh(d + H x) ──► U ──► + b (+ W x) ──► logits

It was the first to learn vectors for words together with the model. What it cannot do is look further back than its
window, and each place of the window has weights of its own: what it learns of a word here it does not know there.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.history.base import LanguageModel, with_past
from glassformer.history.cache import TokenCache
from glassformer.history.config import MLPConfig
from glassformer.taps import Tap


class MLP(LanguageModel):
    """ids (B, T) -> logits (B, T, V), each from the last `context` tokens. What stands before the text counts as one
    more token, the last row of the table."""

    def __init__(self, config: MLPConfig):
        super().__init__(config)
        width = config.context * config.n_embd
        self.embedding = nn.Embedding(config.vocab_size + 1, config.n_embd)
        self.up = nn.Linear(width, config.n_hidden)
        self.head = nn.Linear(config.n_hidden, config.vocab_size)
        self.direct = nn.Linear(width, config.vocab_size, bias=False) if config.direct else None
        self.tap_hidden = Tap("hidden")
        self.init_weights()

    def hidden(self, ids_BT: Tensor, *, cache: TokenCache | None = None) -> Tensor:
        """What the head reads: (B, T) -> (B, T, H), and with `direct` the embeddings behind: (B, T, H + context C)."""
        T, n = ids_BT.shape[1], self.config.context
        ids_BS = with_past(ids_BT, cache, reach=n - 1)
        ids_BS = F.pad(ids_BS, (n - 1 + T - ids_BS.shape[1], 0), value=self.config.vocab_size)  # (B, n - 1 + T)
        x_BTX = self.embedding(ids_BS.unfold(1, n, 1)).flatten(2)  # (B, T, n) -> (B, T, n, C) -> (B, T, X = n C)
        x_BTX = F.dropout(x_BTX, self.dropout, self.training)
        h_BTH = F.dropout(self.tap_hidden(torch.tanh(self.up(x_BTX))), self.dropout, self.training)
        return h_BTH if self.direct is None else torch.cat((h_BTH, x_BTX), dim=-1)

    def logits(self, hidden_BTH: Tensor) -> Tensor:
        """Ask for the next token: what `hidden` gave -> (B, T, V)."""
        h_BTH, x_BTX = hidden_BTH.tensor_split([self.config.n_hidden], dim=-1)
        logits_BTV = self.head(h_BTH)
        return self.tap_logits(logits_BTV if self.direct is None else logits_BTV + self.direct(x_BTX))
