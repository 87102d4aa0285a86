"""A decoder of vectors: numbers in, numbers out, and no vocabulary.

vectors ──linear──► (+ position) ──► blocks ──► final norm ──linear──► numbers
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.models.config import ModelConfig
from glassformer.models.stems import VectorStem
from glassformer.models.transformer import Transformer


class VectorDecoderConfig(ModelConfig):
    """A decoder whose inputs are vectors of `n_inputs` numbers and whose outputs are `n_outputs` numbers.

    `vocab_size` is 1 and unused.
    """

    vocab_size: int = Field(default=1, ge=1, le=1)
    n_inputs: int = Field(ge=1, le=1_000_000)
    n_outputs: int = Field(default=1, ge=1, le=1_000_000)

    @property
    def reads(self) -> str:
        return "vectors"


class VectorDecoder(Transformer):
    """A causal Transformer over vectors (B, T, inputs) -> numbers (B, T, outputs), as in Garg et al. 2022,
    https://arxiv.org/abs/2208.01066, sect. 2."""

    answers = frozenset({"numbers"})
    config: Any
    embedding: VectorStem

    def __init__(self, config: VectorDecoderConfig):
        super().__init__()
        self._build(config, VectorStem(n_inputs=config.n_inputs, n_embd=config.n_embd), causal=True)
        self.head = nn.Linear(config.n_embd, config.n_outputs)
        self.init_weights()

    def forward(self, vectors_BTI: Tensor) -> Tensor:
        """(B, T, inputs) -> (B, T, outputs).

        Raises:
            UsageError: there are more vectors than `block_size` positions.
        """
        T = self.embedding.n_tokens(vectors_BTI)
        if self.config.block_size < T:
            raise UsageError(f"{T} vectors do not fit into block_size={self.config.block_size}; give fewer")
        pos = torch.arange(T, device=vectors_BTI.device)
        return self.read_out(self.head, self.run(self.embedding(vectors_BTI, pos, self.positions), pos))
