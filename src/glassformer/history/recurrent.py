"""Recurrent language models: one state that reads a text token by token and is all that remains of it.

    x_1      x_2      x_3            RNN    h = tanh(W x + U h' + b)
     |        |        |             GRU    h = z h' + (1 - z) n: a gate decides how much of the old stays
    cell ──► cell ──► cell ──►       LSTM   c = f c' + i g,  h = o tanh(c): a memory that is added to, behind gates
     |        |        |
    h_1      h_2      h_3 ──► head   (h' is the state one token ago)

Elman 1990, "Finding structure in time", Cognitive Science 14; as a language model Mikolov et al. 2010, "Recurrent
neural network based language model". LSTM: Hochreiter and Schmidhuber 1997, Neural Computation 9(8), with the forget
gate of Gers et al. 2000. GRU: Cho et al. 2014, https://arxiv.org/abs/1406.1078, sect. 2.3 (as PyTorch and cuDNN have
it, with the reset gate after the product).

As a graph of messages this is a chain: what token 1 passes to token 100 goes through 99 cells. Each may lose
it, and must wait for the one before. The Transformer connects them directly and computes all at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.history.base import LanguageModel
from glassformer.history.cache import RecurrentCache
from glassformer.history.config import RecurrentConfig
from glassformer.taps import Tap

CELLS: dict[str, Callable[..., nn.RNNBase]] = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}


class Recurrent(LanguageModel):
    """ids (B, T) -> logits (B, T, V) by `n_layer` RNN, GRU or LSTM layers; texts of any length can be read."""

    cache_type = RecurrentCache

    def __init__(self, config: RecurrentConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.cell = CELLS[config.kind](config.n_embd, config.n_hidden, config.n_layer, batch_first=True)
        self.head = nn.Linear(config.n_hidden, config.vocab_size)
        self.tap_hidden = Tap("hidden")
        self.init_weights()

    def hidden(self, ids_BT: Tensor, *, cache: RecurrentCache | None = None) -> Tensor:
        """The states of the last layer after each token: (B, T) -> (B, T, H)."""
        B, T = ids_BT.shape
        if cache is None:
            h_BTH, _ = self.cell(self._embedded(ids_BT))
        else:
            x_BSC = self._embedded(cache.unread(ids_BT))  # S > T after a rewind
            h_BSH, state = run_cell(self.cell, x_BSC, cache.state)
            cache.keep(state, T)
            h_BTH = h_BSH[:, -T:]
        return F.dropout(self.tap_hidden(h_BTH), self.dropout, self.training)

    def logits(self, hidden_BTH: Tensor) -> Tensor:
        """Ask the states for the next token: (B, T, H) -> (B, T, V)."""
        return self.tap_logits(self.head(hidden_BTH))

    def _embedded(self, ids_BT: Tensor) -> Tensor:
        return F.dropout(self.embedding(ids_BT), self.dropout, self.training)


def run_cell(cell: nn.RNNBase, x_BTC: Tensor, state: tuple[Tensor, ...] | None) -> tuple[Tensor, tuple[Tensor, ...]]:
    """A recurrent layer from a state to a state, each a tuple of (L, B, H): (h,), of an LSTM (h, c)."""
    before: Any = state if state is None or isinstance(cell, nn.LSTM) else state[0]
    h_BTH, after = cell(x_BTC, before)
    return h_BTH, after if isinstance(after, tuple) else (after,)
