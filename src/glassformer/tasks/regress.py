"""Regress: one number for a text, such as the solubility of a molecule that is written as SMILES.

c 1 c c c c c 1 O  ──encoder──► vectors ──pooling, head──► -0.04    target: 0.0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from glassformer.tasks.base import Batch
from glassformer.tasks.examples import shortened
from glassformer.tasks.losses import check_not_empty, padded
from glassformer.tasks.regression import Regression
from glassformer.tasks.sources import check_targets


class Regress(Regression):
    """Squared error of a number for each text. A batch is (inputs_BT, lengths_B, targets_B)."""

    default_kind: ClassVar[tuple[str, str]] = ("bpe", "subwords of the texts")

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids, target)."""
        check_targets(self.source.examples[split], "number")
        texts = self.source.cut(self.source.encode(split), split, T)
        return [*zip(texts, self.target_values(split), strict=True)]

    def collate(
        self, examples: Sequence[tuple[Sequence[int], float]], random: np.random.Generator | None = None
    ) -> Batch:
        """(ids, number) pairs -> a batch."""
        texts = [ids for ids, _ in examples]
        check_not_empty(texts, "text")
        return *padded(texts, self.pad_token), torch.tensor([target for _, target in examples], dtype=torch.float32)

    def numbers(self, model: Any, batch: Batch) -> Tensor:
        inputs_BT, lengths_B, _ = batch
        found: Tensor = model.number(model(inputs_BT, lengths_B), lengths_B)
        return found

    def shown(self, example: Any) -> str:
        return shortened(self.tokenizer.decode(example[0]))[:60]
