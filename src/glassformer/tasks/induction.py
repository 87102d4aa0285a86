"""Next token of a text, with the induction of the model measured at each evaluation, so that its rise can be seen.

    metrics.jsonl        val_induction            the prefix-matching score of the best head
                         val_loss_first_time      nats a token of random tokens; at best the logarithm of their number
                         val_loss_second_time     the same tokens again: lower where the model copies

Olsson et al. 2022, https://arxiv.org/abs/2209.11895: the heads form within a short stretch of training. With `repeated`
part of each training batch is random tokens that come again and again.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field

from glassformer.data import TokenBatches
from glassformer.data.batches import philox
from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.induction import Induction, induction
from glassformer.figures.primitives import Figure, HeatMap
from glassformer.generation.eval_mode import evaluating
from glassformer.models import ModelConfig
from glassformer.tasks.base import Batch, Batches
from glassformer.tasks.next_token import NextToken
from glassformer.tasks.settings import TaskSettings
from glassformer.tasks.text import TextTask

TRAINED, MEASURED = 95, 96  # streams of random numbers
SHORTEST = 4  # random tokens before they come again, in training


class InductionSettings(TaskSettings):
    """[task] of `induction`."""

    repeated: float = Field(default=0.0, ge=0, lt=1)
    """share of the training windows that are random tokens, again and again, in place of text"""
    length: int = Field(default=25, ge=2)
    """different random tokens that come twice where induction is measured"""
    rows: int = Field(default=64, ge=2)
    """such sequences"""


class InductionTask(NextToken):
    """See above. The loss and the score are those of `NextToken`, on the text alone."""

    Settings: ClassVar[type[TaskSettings]] = InductionSettings
    data_keys: ClassVar[tuple[str, ...]] = (*TextTask.data_keys, "order")

    @property
    def ordinary(self) -> np.ndarray:
        """The tokens that are drawn: all but special ones."""
        special = set(self.tokenizer.special_tokens.values())
        return np.array([i for i in range(self.tokenizer.vocab_size) if i not in special])

    def check(self, config: Any) -> None:
        super().check(config)
        if config is not None and not isinstance(config, ModelConfig):
            raise UsageError(f"induction is what heads of attention do, and a model of kind {config.kind} has none")
        n, most = self.settings.length, len(self.ordinary)
        if config is not None:
            most = min(most, config.block_size // 2)
        if n > most:
            raise UsageError(f"task.length={n} is more than fits; this model and vocabulary take at most {most}")

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        return MixedBatches(
            self.view(split),
            tokens=self.ordinary,
            share=self.settings.repeated,
            block_size=self.run.sequence_length,
            batch_size=self.run.batch_size // world_size,
            seed=self.run.seed,
            order=self.source.data.order,
            rank=rank,
            world_size=world_size,
        )

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        measured = super().evaluate(model, split, whole=whole)
        if split == "train":
            return measured
        found = self.measure(model)
        more = {"induction": found.best, "loss_first_time": found.first, "loss_second_time": found.second}
        return Metrics({**measured.values, **more}, measured.windows)

    def measure(self, model: Any) -> Induction:
        """Induction on the same random tokens at each call."""
        n = self.settings.length
        random = philox(self.run.seed, MEASURED, 0)
        once = np.stack([random.permutation(self.ordinary)[:n] for _ in range(self.settings.rows)])
        ids_BT = torch.from_numpy(np.concatenate([once, once], axis=1))
        with evaluating(model):
            return induction(model, ids_BT.to(next(model.parameters()).device), n)

    def sample(self, model: Any, step: int) -> list[Figure]:
        """A text, and the score of every head."""
        scores_LH = self.measure(model).scores_LH.numpy()
        layers, heads = [f"layer {i}" for i in range(len(scores_LH))], [f"head {i}" for i in range(len(scores_LH[0]))]
        return [*super().sample(model, step), HeatMap("Induction", scores_LH, layers, heads, highest=1.0)]


class MixedBatches(TokenBatches):
    """Windows of a text, the first of each step replaced by random tokens that come again and again.

    tokens: those that are drawn. share: of the rows of a step. others: as in `TokenBatches`.
    """

    def __init__(self, view: Any, *, tokens: np.ndarray, share: float, **numbers: Any):
        super().__init__(view, **numbers)
        self.tokens, self.repeated = tokens, math.floor(share * self.together + 0.5)

    def batch(self, step: int) -> Batch:
        parts = super().batch(step)
        first = self.rank * self.batch_size
        n = min(max(0, self.repeated - first), self.batch_size)
        if not n:
            return parts
        rows_nT = torch.from_numpy(self._repeated(step)[first : first + n])
        inputs_BT, targets_BT = parts
        return torch.cat([rows_nT[:, :-1], inputs_BT[n:]]), torch.cat([rows_nT[:, 1:], targets_BT[n:]])

    def _repeated(self, step: int) -> np.ndarray:
        """(rows of all ranks, T + 1): each row has a period of its own, so that places do not help."""
        random, n, T = philox(self.seed, TRAINED, step), self.repeated, self.block_size
        drawn_nT = self.tokens[random.integers(len(self.tokens), size=(n, T + 1))]
        periods_n1 = random.integers(min(SHORTEST, T), max(SHORTEST, T // 2) + 1, size=(n, 1))
        return np.take_along_axis(drawn_nT, np.arange(T + 1)[None] % periods_n1, axis=1)
