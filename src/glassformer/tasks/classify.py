"""Classify: one label for a sequence, such as whether a review is a good one.

A fine film. </s>  ──encoder──► vectors ──pooling, head──► logits of the classes    target: positive
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from glassformer.data.examples import Example
from glassformer.tasks.base import Batch
from glassformer.tasks.examples import ExampleTask, shortened
from glassformer.tasks.losses import check_not_empty, padded
from glassformer.tasks.sources import ExampleSource, check_classes, check_targets, classes_of, numbers_of


class Classify(ExampleTask):
    """Cross-entropy over classes, one target an example: how BERT is fine-tuned to sentences (Devlin et al. 2018,
    https://arxiv.org/abs/1810.04805, section 4.1). How the vectors of a sequence become one is decided by the model
    (`sequence_logits`).

    A batch is (inputs_BT, lengths_B, labels_B).

    Args:
        n_classes: labels are 0 ... n_classes - 1.
    """

    asks: ClassVar[str] = "class"
    placeholders: ClassVar[Mapping[str, Any] | None] = {**(ExampleTask.placeholders or {}), "n_classes": 2}
    command: ClassVar[str] = "classify"

    def __init__(self, *, n_classes: int, **others: Any):
        super().__init__(**others)
        self.n_classes = n_classes

    @classmethod
    def arguments(cls, source: ExampleSource) -> dict[str, Any]:
        return {**super().arguments(source), "n_classes": len(source.labels)}

    @classmethod
    def labels_of(cls, examples: Sequence[Example], known: tuple[str, ...]) -> tuple[str, ...]:
        return classes_of((example.target for example in examples), known)

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids, number of the label)."""
        examples = self.source.examples[split]
        check_targets(examples, "label")
        numbers = numbers_of([example.target for example in examples], self.labels)
        return [*zip(self.source.cut(self.source.encode(split), split, T), numbers, strict=True)]

    def collate(
        self, examples: Sequence[tuple[Sequence[int], int]], random: np.random.Generator | None = None
    ) -> Batch:
        """(ids, label) pairs -> a batch.

        Raises:
            DataError: there is no example, one has no token, or a label is no class.
        """
        texts, labels = [ids for ids, _ in examples], [label for _, label in examples]
        check_not_empty(texts, "text")
        check_classes(labels, self.n_classes)
        return *padded(texts, self.pad_token), torch.tensor(labels, dtype=torch.int64)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, classes)."""
        inputs_BT, lengths_B, _ = batch
        logits: Tensor = model.sequence_logits(model(inputs_BT, lengths_B), lengths_B)
        return logits

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """A text, the probability of each class, and the class it has."""
        probabilities = self.answer(model, example).softmax(dim=-1).tolist()
        named = ", ".join(f"{label} {p:.2f}" for label, p in zip(self.labels, probabilities, strict=True))
        text = shortened(self.tokenizer.decode(example[0]))
        return f"text:   {text}\nmodel:  {named}\ntarget: {self.labels[example[1]]}"
