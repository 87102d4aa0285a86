"""The neural bigram: a table of V x V numbers, where row a holds the logits of what follows a.

The smallest language model that learns by gradient; trained long enough it becomes the table of counted pairs.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassformer.history.base import LanguageModel, with_past
from glassformer.history.cache import TokenCache
from glassformer.history.config import BigramConfig
from glassformer.models.counts import FlopsPerToken


class Bigram(LanguageModel):
    """ids (B, T) -> logits (B, T, V), each from its own token and nothing else."""

    def __init__(self, config: BigramConfig):
        super().__init__(config)
        self.table = nn.Embedding(config.vocab_size, config.vocab_size)
        self.init_weights()

    def hidden(self, ids_BT: Tensor, *, cache: TokenCache | None = None) -> Tensor:
        """The rows of the tokens: (B, T) -> (B, T, V). There is nothing between them and the logits."""
        return self.table(with_past(ids_BT, cache, reach=0))

    def init_weights(self, kind: str = "own") -> None:
        """As `HistoryModel.init_weights`; by itself nearly zero, as this embedding is a head as well."""
        super().init_weights(kind)
        if kind == "own":
            nn.init.normal_(self.table.weight, std=0.02)

    def flops_per_token(self) -> FlopsPerToken:
        """A row is V numbers that are read: 2 V, as if it were a head over a single channel."""
        return FlopsPerToken(2 * self.config.vocab_size, 6 * self.config.vocab_size)
