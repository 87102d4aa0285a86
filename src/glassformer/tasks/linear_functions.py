"""Learning in context: a new linear function in every prompt, which the model finds from examples without new weights.

    y = w x + noise      prompt     x1 y1 x2 y2 ... xn        a vector each; y as (y, 0, ..., 0)
    w ~ N(0, I)          answers    y1    y2    ... yn        at every x

Garg et al. 2022, https://arxiv.org/abs/2208.01066. With noise of deviation s the best that can be known of y after k
examples is what ridge regression with the penalty s^2 says: w is normal, so this is its posterior mean.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.batches import SeededBatches, philox
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.evaluation.estimate import Metric, Metrics
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Curves, Figure, Line
from glassformer.generation.eval_mode import evaluating
from glassformer.processors.vectors import VectorProcessor
from glassformer.tasks.base import Batch, Batches, Loss, Opening, Score, Task
from glassformer.tasks.settings import Choice, DataSettings, TaskSettings, TokenizerSettings

SOURCE = "linear-functions"
"""data.source: the functions are drawn by training.seed, and no file is read."""
STREAMS = {"train": 91, "validation": 92, "test": 93}  # of random numbers
EVAL_ROWS = 256
SAMPLE_FUNCTIONS = 256


class LinearFunctionsSettings(TaskSettings):
    """[task] of `linear_functions`."""

    inputs: int = Field(default=5, ge=1, le=1000)
    """numbers of an x"""
    examples: int = Field(default=16, ge=2, le=10_000)
    """pairs of a prompt; the last y is only predicted"""
    noise: float = Field(default=0.5, ge=0)
    """standard deviation of what is added to every y"""
    held_out: int = Field(default=2000, ge=1)
    """functions of an evaluation"""


@dataclass(frozen=True)
class LinearFunctionSource:
    """What a source is where nothing is read."""

    settings: LinearFunctionsSettings
    tokenizer: None = None
    source_tokenizer: None = None
    labels: tuple[str, ...] = ()
    n_train: int = 100_000

    @property
    def key(self) -> str:
        """Changes when the functions do."""
        return hashlib.sha256(self.settings.model_dump_json().encode()).hexdigest()[:16]


class LinearFunctions(Task):
    """Squared error at every y of prompts of random linear functions.

    A batch is (vectors (B, 2 n - 1, inputs), y (B, n)), both fp32.
    """

    Settings: ClassVar[type[TaskSettings]] = LinearFunctionsSettings
    score: ClassVar[Score] = Score("val_squared_error", "lower")
    reads: ClassVar[str] = "vectors"
    asks: ClassVar[str] = "numbers"
    head: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    fixed_shape: ClassVar[bool] = True
    alarm: ClassVar[float | None] = None
    source: LinearFunctionSource

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> LinearFunctionSource:
        if opening.data.source != SOURCE:
            raise UsageError(f"task.kind=linear_functions draws its functions by the seed; set data.source={SOURCE}")
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("numbers have no tokenizer; leave out the keys of [tokenizer]")
        return LinearFunctionSource(cls.Settings.make(**opening.settings))  # type: ignore[arg-type]

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        raise DataError(f"{data.source} holds numbers and no text")

    @property
    def processor(self) -> VectorProcessor:
        return VectorProcessor(self.settings.inputs)

    @property
    def n_answers(self) -> int:
        """A blind guess, y = 0, costs the variance of y; that is the logarithm of so many answers."""
        return math.ceil(math.exp(min(700.0, self.settings.inputs + self.settings.noise**2)))

    def model_fields(self) -> dict[str, Any]:
        s = self.settings
        return {"vocab_size": 1, "block_size": 2 * s.examples - 1, "n_inputs": s.inputs, "n_outputs": 1}

    def draw(self, split: str, number: int, n: int) -> Batch:
        """`n` functions with their prompts, as a batch: the same for the same seed, split and number.

        Raises:
            UsageError: there is no such split.
        """
        if split not in STREAMS:
            raise UsageError(f"linear functions have no {split} split; {did_you_mean(split, STREAMS)}")
        s, random = self.settings, philox(self.run.seed, STREAMS[split], number)
        w_BD = random.standard_normal((n, s.inputs))
        x_BND = random.standard_normal((n, s.examples, s.inputs))
        y_BN = np.einsum("bnd,bd->bn", x_BND, w_BD) + s.noise * random.standard_normal((n, s.examples))
        return torch.from_numpy(prompts(x_BND, y_BN)), torch.from_numpy(y_BN.astype(np.float32))

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        size = self.run.batch_size // world_size
        return FunctionBatches(self, split, batch_size=size, seed=self.run.seed, rank=rank, world_size=world_size)

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The squared error at every y."""
        squares_BN = self.squared_errors(model, batch)
        return Loss(squares_BN.sum(), squares_BN.numel())

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The squared errors of each prompt, added up."""
        squares_BN = self.squared_errors(model, batch)
        counts_B = torch.full((len(squares_BN),), squares_BN.shape[1], device=squares_BN.device)
        return RowLosses(squares_BN.sum(dim=1, dtype=torch.float64), counts_B, torch.zeros_like(counts_B))

    def squared_errors(self, model: Any, batch: Batch) -> Tensor:
        """(B, n), after 0, 1, ..., n - 1 examples."""
        vectors_BTD, y_BN = batch
        return (model(vectors_BTD)[:, ::2, 0].float() - y_BN).square()

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        windows, _ = evaluate_rows(model, self.rows, self._held_out(split))
        mean = windows.estimate()
        return Metrics({"squared_error": Metric(mean.loss, mean.n, mean.interval)})

    def _held_out(self, split: str) -> list[Batch]:
        n = self.settings.held_out
        return [
            self.draw(split, number, min(EVAL_ROWS, n - number * EVAL_ROWS)) for number in range(-(-n // EVAL_ROWS))
        ]

    def example_batch(self, model: Any) -> Batch:
        return self.draw("validation", 0, 8)

    def sample(self, model: Any, step: int) -> list[Figure]:
        """The error by number of examples, beside least squares and ridge."""
        return errors_in_context(self, model, [self.draw("validation", 0, SAMPLE_FUNCTIONS)]).figures()

    def extra_scores(self, model: Any, split: str = "validation") -> ContextErrors:
        """The error by number of examples, beside least squares and ridge."""
        return errors_in_context(self, model, self._held_out(split))


class FunctionBatches(SeededBatches):
    """Training batches of fresh functions; see `SeededBatches`."""

    def __init__(self, task: LinearFunctions, split: str, **numbers: int):
        super().__init__(**numbers)
        self.task, self.split = task, split

    def batch(self, step: int) -> Batch:
        ours = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        vectors_BTD, y_BN = self.task.draw(self.split, step, self.together)
        return vectors_BTD[ours], y_BN[ours]


def prompts(x_BND: np.ndarray, y_BN: np.ndarray) -> np.ndarray:
    """x1 y1 x2 ... xn as vectors, (B, 2 n - 1, D) fp32; the numbers behind a y are 0."""
    B, N, D = x_BND.shape
    vectors_BTD = np.zeros((B, 2 * N - 1, D), dtype=np.float32)
    vectors_BTD[:, ::2] = x_BND
    vectors_BTD[:, 1::2, 0] = y_BN[:, :-1]
    return vectors_BTD


def ridge_predictions(x_BND: np.ndarray, y_BN: np.ndarray, penalty: float) -> np.ndarray:
    """Of each y, what ridge regression on the pairs before it says, (B, N) float64. penalty 0: least squares, of
    several solutions the shortest."""
    predictions_BN = np.zeros(y_BN.shape)
    identity_DD = np.eye(x_BND.shape[2])
    for k in range(1, y_BN.shape[1]):
        known_BkD, known_Bk1 = x_BND[:, :k], y_BN[:, :k, None]
        if penalty:
            transposed_BDk = known_BkD.transpose(0, 2, 1)
            w_BD1 = np.linalg.solve(transposed_BDk @ known_BkD + penalty * identity_DD, transposed_BDk @ known_Bk1)
        else:
            w_BD1 = np.linalg.pinv(known_BkD) @ known_Bk1
        predictions_BN[:, k] = (x_BND[:, k, None, :] @ w_BD1)[:, 0, 0]
    return predictions_BN


@dataclass(frozen=True)
class ContextErrors:
    """Mean squared errors after 0, 1, ... examples, each over n functions; those of the model with half the width of
    their 95 % intervals. The errors of ridge and least squares are on the same prompts."""

    n: int
    model: list[float]
    intervals: list[float]
    ridge: list[float]
    least_squares: list[float]

    @property
    def worst_ratio(self) -> float:
        """The largest ratio of the model's error to ridge's, over all numbers of examples."""
        return max(ours / best for ours, best in zip(self.model, self.ridge, strict=True))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "worst_ratio": self.worst_ratio}

    def lines(self) -> list[str]:
        """A table with a row for each number of examples."""
        rows = zip(self.model, self.intervals, self.ridge, self.least_squares, strict=True)
        table = [f"{'examples':>8} {'model':>16} {'ridge':>8} {'least squares':>14} {'model / ridge':>14}"]
        for k, (model, interval, ridge, plain) in enumerate(rows):
            table.append(f"{k:>8} {model:>8.4f} ± {interval:.3f} {ridge:>8.4f} {plain:>14.4f} {model / ridge:>14.3f}")
        return [*table, f"error at most {self.worst_ratio:.3f} times that of ridge ({self.n:,} functions)"]

    def figures(self) -> list[Figure]:
        """The errors over the number of examples."""
        x = list(range(len(self.model)))
        low, high = ([m + sign * i for m, i in zip(self.model, self.intervals, strict=True)] for sign in (-1, 1))
        others = {"ridge": self.ridge, "least squares": self.least_squares}
        lines = [Line("model", x, self.model, low, high), *(Line(name, x, errors) for name, errors in others.items())]
        title = "Squared error by examples in context"
        return [Curves(title, lines, "examples", "squared error", y_max=1.5 * max(self.model[0], self.ridge[0]))]


def errors_in_context(task: LinearFunctions, model: Any, batches: Iterable[Batch]) -> ContextErrors:
    """The errors of a model by number of examples, beside ridge regression, with the penalty that is best for the
    task's noise, and least squares."""
    device = next(model.parameters()).device
    found: dict[str, list[np.ndarray]] = {"model": [], "ridge": [], "least squares": []}
    for batch in batches:
        with evaluating(model):
            squares_BN = task.squared_errors(model, tuple(part.to(device) for part in batch))
        x_BND, y_BN = (part.double().numpy() for part in (batch[0][:, ::2], batch[1]))
        found["model"].append(squares_BN.double().cpu().numpy())
        for name, penalty in (("ridge", task.settings.noise**2), ("least squares", 0.0)):
            found[name].append((ridge_predictions(x_BND, y_BN, penalty) - y_BN) ** 2)
    errors = {name: np.concatenate(parts) for name, parts in found.items()}
    n = len(errors["model"])
    spread = errors["model"].std(axis=0, ddof=1) if n > 1 else np.full(errors["model"].shape[1], math.inf)
    means = {name: values.mean(axis=0).tolist() for name, values in errors.items()}
    intervals = (1.96 * spread / math.sqrt(n)).tolist()
    return ContextErrors(n, means["model"], intervals, means["ridge"], means["least squares"])
