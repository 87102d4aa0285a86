"""Skip-gram: a word has a vector as itself and another as a neighbour; their product predicts what occurs together.

    the  king  of  France        king . of      high: they were seen side by side
                                 king . tiff    low

word2vec, Mikolov et al. 2013 (https://arxiv.org/abs/1301.3781, https://arxiv.org/abs/1310.4546). After training the
second table has done its work, and the first is what is looked at.
"""

from __future__ import annotations

from torch import Tensor, nn

from glassformer.history.base import HistoryModel
from glassformer.history.config import SkipGramConfig
from glassformer.models.counts import FlopsPerToken
from glassformer.taps import Tap


class SkipGram(HistoryModel):
    """ids (B, T) -> vectors of the words (B, T, C)."""

    answers = frozenset({"neighbour"})
    config: SkipGramConfig

    def __init__(self, config: SkipGramConfig):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.n_embd)
        self.neighbour = nn.Embedding(config.vocab_size, config.n_embd)
        self.tap_token, self.tap_neighbour = Tap("embedding.token"), Tap("embedding.neighbour")
        self.init_weights()

    def forward(self, ids_BT: Tensor) -> Tensor:
        """(B, T) -> (B, T, C): the words as themselves."""
        return self.tap_token(self.embedding(ids_BT))

    def neighbours(self, ids: Tensor) -> Tensor:
        """The words as neighbours: any shape of ids, and C at its end."""
        return self.tap_neighbour(self.neighbour(ids))

    def init_weights(self, kind: str = "own") -> None:
        """As `HistoryModel.init_weights`; by itself as in word2vec: small in one table, nothing in the other, so that
        every two words are as likely as not."""
        super().init_weights(kind)
        if kind == "own":
            nn.init.uniform_(self.embedding.weight, -0.5 / self.config.n_embd, 0.5 / self.config.n_embd)
            nn.init.zeros_(self.neighbour.weight)

    def flops_per_token(self) -> FlopsPerToken:
        """Looking up is none; what the products cost is the objective's."""
        return FlopsPerToken(0, 0)
