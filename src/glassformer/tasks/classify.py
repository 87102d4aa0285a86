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
from glassformer.errors import DataError, did_you_mean
from glassformer.tasks.base import Batch
from glassformer.tasks.examples import ExampleSource, ExampleTask, check_classes, classes_of, shortened
from glassformer.tasks.losses import check_not_empty, padded


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
        number, examples = {label: i for i, label in enumerate(self.labels)}, self.source.examples[split]
        if bare := next((e.source for e in examples if not e.target), None):
            raise DataError(f"{bare[:40]!r} has no label; give each text one")
        if unknown := next((e.target for e in examples if e.target not in number), None):
            raise DataError(f"the label {unknown!r} is not one that was learned; {did_you_mean(unknown, self.labels)}")
        sources = self.encode_sources(split, T)
        return [(ids, number[e.target]) for ids, e in zip(sources, examples, strict=True)]

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
        device = next(model.parameters()).device
        with torch.inference_mode():
            batch = tuple(part.to(device) for part in self.collate([example]))
            probabilities = self.logits(model, batch).softmax(dim=-1)[0].tolist()
        named = ", ".join(f"{label} {p:.2f}" for label, p in zip(self.labels, probabilities, strict=True))
        text = shortened(self.tokenizer.decode(example[0]))
        return f"text:   {text}\nmodel:  {named}\ntarget: {self.labels[example[1]]}"
