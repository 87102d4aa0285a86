"""Small models with the calls of Encoder and EncoderDecoder, in which every token that may be looked at matters."""

from __future__ import annotations

import torch
from torch import nn
from toys import shaken

V, C, CLASSES = 61, 5, 3


def mean_until(x_BTC: torch.Tensor, lengths_B: torch.Tensor) -> torch.Tensor:
    """The mean of the first `lengths` vectors of each row, (B, 1, C)."""
    counts_BT1 = (torch.arange(x_BTC.shape[1]) < lengths_B[:, None]).unsqueeze(2)
    return x_BTC.where(counts_BT1, 0).sum(dim=1, keepdim=True) / lengths_B[:, None, None]


class ToyEncoder(nn.Module):
    """Each vector is its token's, plus the mean of the sequence."""

    def __init__(self, classes: int = CLASSES):
        super().__init__()
        self.table, self.mix = nn.Embedding(V, C), nn.Linear(C, C)
        self.token_head, self.sequence_head = nn.Linear(C, V), nn.Linear(C, classes)

    def forward(self, ids_BT, lengths_B=None):
        x_BTC = self.table(ids_BT)
        return torch.tanh(x_BTC + self.mix(mean_until(x_BTC, lengths_B)))

    def token_logits(self, vectors):
        return self.token_head(vectors)

    def sequence_logits(self, vectors_BTC, lengths_B):
        return self.sequence_head(mean_until(vectors_BTC, lengths_B).squeeze(1))


class ToyTranslator(nn.Module):
    """Each vector is the mean of the source and of the target so far."""

    def __init__(self):
        super().__init__()
        self.source, self.target, self.head = nn.Embedding(V, C), nn.Embedding(V, C), nn.Linear(C, V)

    def forward(self, source_BS, target_BT, source_lengths_B=None):
        y_BTC = self.target(target_BT)
        so_far_BTC = y_BTC.cumsum(dim=1) / torch.arange(1, y_BTC.shape[1] + 1)[:, None]
        return self.head(torch.tanh(mean_until(self.source(source_BS), source_lengths_B) + so_far_BTC))


def toy_encoder(classes: int = CLASSES) -> ToyEncoder:
    return shaken(ToyEncoder(classes)).double()


def toy_translator() -> ToyTranslator:
    return shaken(ToyTranslator()).double()
