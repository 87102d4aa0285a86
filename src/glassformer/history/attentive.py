"""A recurrent language model that also looks back: attention over its own earlier states.

    x_1 ──► cell ──► h_1 ─┐
    x_2 ──► cell ──► h_2 ─┤       score_ts = h_t . W h_s,  s <= t        Luong et al. 2015, eq. 8 ("general")
    x_3 ──► cell ──► h_3 ─┴─► c_3 = sum over s of softmax(score_3s) h_s
                      └─────► tanh(U [c_3; h_3]) ──► head               eq. 5

Luong, Pham and Manning 2015, https://arxiv.org/abs/1508.04025; over a language model's own past: Daniluk et al. 2017,
https://arxiv.org/abs/1702.04521. What is far back is one step away, as in a Transformer; the states are still made
one after the other.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.history.base import LanguageModel, with_past
from glassformer.history.cache import TokenCache
from glassformer.history.config import AttentiveLSTMConfig
from glassformer.taps import Tap


class AttentiveLSTM(LanguageModel):
    """ids (B, T) -> logits (B, T, V). With a cache all that was read is read again: every earlier state is needed."""

    def __init__(self, config: AttentiveLSTMConfig):
        super().__init__(config)
        H = config.n_hidden
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.cell = nn.LSTM(config.n_embd, H, config.n_layer, batch_first=True)
        self.key = nn.Linear(H, H, bias=False)  # W
        self.combine = nn.Linear(2 * H, H, bias=False)  # U
        self.head = nn.Linear(H, config.vocab_size)
        self.tap_hidden = Tap("hidden")
        self.init_weights()

    def hidden(self, ids_BT: Tensor, *, cache: TokenCache | None = None) -> Tensor:
        """What the head reads after each token: (B, T) -> (B, T, H)."""
        T = ids_BT.shape[1]
        ids_BS = with_past(ids_BT, cache, reach=cache.capacity if cache is not None else 0)
        h_BSH, _ = self.cell(F.dropout(self.embedding(ids_BS), self.dropout, self.training))
        context_BSH = F.scaled_dot_product_attention(h_BSH, self.key(h_BSH), h_BSH, is_causal=True, scale=1.0)
        h_BSH = torch.tanh(self.combine(torch.cat((context_BSH, h_BSH), dim=-1)))
        return F.dropout(self.tap_hidden(h_BSH[:, -T:]), self.dropout, self.training)

    def logits(self, hidden_BTH: Tensor) -> Tensor:
        """(B, T, H) -> (B, T, V)."""
        return self.tap_logits(self.head(hidden_BTH))
