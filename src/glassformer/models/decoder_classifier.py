"""A decoder with a head over classes in place of the one over tokens: a reward model, or a classifier.

ids ──► stem ──► blocks ──► final norm ──► the vector of the last token ──► one number, or the logits of the classes

Transformers calls it `LlamaForSequenceClassification`, and so on.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.models.config import ModelConfig
from glassformer.models.stems import TextStem
from glassformer.models.transformer import Transformer, text_stem


class DecoderClassifierConfig(ModelConfig):
    """A decoder that chooses one of `n_classes`, or with one of them gives a number. It has no head over tokens, so
    `tied_head` and `head_bias` mean nothing."""

    n_classes: int = Field(ge=1, le=1_000_000)


class DecoderClassifier(Transformer):
    """A causal Transformer: ids (B, T) -> vectors (B, T, C), and a head for the last of each sequence.

    The last token alone has read all of the others. What fills up shorter rows stands behind, where no token looks.
    """

    answers = frozenset({"class"})
    embedding: TextStem
    config: DecoderClassifierConfig

    def __init__(self, config: DecoderClassifierConfig):
        super().__init__()
        self._build(config, text_stem(config), causal=True)
        self.classifier = nn.Linear(config.n_embd, config.n_classes, bias=False)
        self.init_weights()

    def forward(self, ids_BT: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Ids -> vectors (B, T, C). lengths: as an `Encoder` takes them; here they change nothing.

        Raises:
            UsageError: there are more tokens than `block_size` positions.
        """
        T = ids_BT.shape[1]
        if self.config.block_size < T:
            raise UsageError(f"{T} tokens do not fit into block_size={self.config.block_size}; shorten the text")
        pos = torch.arange(T, device=ids_BT.device)
        return self.run(self.embedding(ids_BT, pos, self.positions), pos)

    def sequence_logits(self, vectors_BTC: Tensor, lengths_B: Tensor | None = None) -> Tensor:
        """Which class is the sequence of, or its number: (B, T, C) -> (B, classes)."""
        B, T, _ = vectors_BTC.shape
        last_B = torch.full((B,), T, device=vectors_BTC.device) if lengths_B is None else lengths_B
        return self.read_out(self.classifier, vectors_BTC[torch.arange(B, device=last_B.device), last_B - 1])
