"""What tasks have in common that predict one number for each example: squared error, in the unit of the targets.

A task of this kind names `Regression` before the task whose inputs it shares: `class RegressSets(Regression, Sets)`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from glassformer.data.records import as_number
from glassformer.errors import DataError
from glassformer.evaluation.estimate import Metric, Metrics
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Column, Figure, Table
from glassformer.tasks.base import Batch, Loss, Score
from glassformer.tasks.examples import ExampleTask


class Regression(ExampleTask):
    """Squared error of a number (`Encoder.number`), divided by the variance of the training targets, so that a blind
    guess costs 1; evaluations are in the targets' own unit. A subclass gives `numbers` and `encode`."""

    asks: ClassVar[str] = "number"
    score: ClassVar[Score] = Score("val_rmse", "lower")
    alarm: ClassVar[float | None] = None
    command: ClassVar[str] = "predict"
    placeholders: ClassVar[Mapping[str, Any] | None] = {**(ExampleTask.placeholders or {}), "n_classes": 1}

    @classmethod
    def labels_of(cls, examples: Sequence[Any], known: tuple[str, ...]) -> tuple[str, ...]:
        return ()

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        return {key: value for key, value in super().arguments(source).items() if key != "n_classes"}

    @property
    def n_answers(self) -> int:
        """The loss of a blind guess, 1, is the logarithm of so many answers, rounded up."""
        return math.ceil(math.e)

    @property
    def scale(self) -> float:
        """Standard deviation of the training targets."""
        return float(self.target_fields["number_scale"])

    @property
    def target_fields(self) -> dict[str, Any]:
        """The fields of a configuration that the targets decide."""
        targets = np.array(number_targets(self.source.examples["train"]))
        if not len(targets):
            raise DataError(f"{self.source.name}: no examples to learn from")
        return {"n_classes": 1, "number_mean": float(targets.mean()), "number_scale": float(targets.std()) or 1.0}

    def model_fields(self) -> dict[str, Any]:
        return {**super().model_fields(), **self.target_fields}

    def target_values(self, split: str) -> list[Any]:
        """The targets of a split."""
        return number_targets(self.source.examples[split])

    def numbers(self, model: Any, batch: Batch) -> Tensor:
        """(B,) predicted."""
        raise NotImplementedError

    def loss(self, model: Any, batch: Batch) -> Loss:
        standard_B = (self.numbers(model, batch) - batch[-1]) / model.config.number_scale
        return Loss(standard_B.square().sum(), len(standard_B))

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The squared error of each example."""
        squares_B = (self.numbers(model, batch).double() - batch[-1].double()).square()
        counts_B = torch.ones(len(squares_B), dtype=torch.int64, device=squares_B.device)
        return RowLosses(squares_B, counts_B, torch.zeros_like(counts_B))

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        found = super().evaluate(model, split, whole=whole)
        return Metrics(error_metrics(found["loss"]), found.windows)

    @torch.inference_mode()
    def answer(self, model: Any, example: Any) -> Tensor:
        device = next(model.parameters()).device
        batch = self.collate([example], np.random.default_rng(0))
        return self.numbers(model, tuple(part.to(device) for part in batch))[0].cpu()

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Some held-out examples, what the model says, and the target."""
        examples = self.encoded("validation", model.config.block_size)[:5]
        rows = [(self.shown(example), float(self.answer(model, example)), float(example[-1])) for example in examples]
        columns = [Column("example"), Column("predicted", "number"), Column("target", "number")]
        return [Table("Held-out examples", columns, rows)]

    def shown(self, example: Any) -> str:
        """An encoded example in a few words."""
        raise NotImplementedError


def number_targets(examples: Sequence[Any]) -> list[float]:
    """The targets of examples as numbers.

    Raises:
        DataError: one is none.
    """
    numbers = [as_number(example.target) for example in examples]
    for example, number in zip(examples, numbers, strict=True):
        if number is None or not math.isfinite(number):
            raise DataError(
                f"the target {str(example.target)[:40]!r} is no finite number; mend or leave out the example"
            )
    return numbers  # type: ignore[return-value]


def error_metrics(squared: Metric) -> dict[str, Metric]:
    """The mean squared error, and its root (interval by the delta method)."""
    root = math.sqrt(squared.value)
    interval = squared.interval / (2 * root) if root else squared.interval
    return {"rmse": Metric(root, squared.n, interval), "squared_error": squared}
