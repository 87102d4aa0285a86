"""What every task has. A task is one use of a Transformer, and one file of this package.

    examples ──collate──► batch ─┬─loss──► sum, count, metrics               what is trained, smoothing included
                                 └─rows──► sum, count, hits of each example  what is reported: plain cross-entropy

The loop, checkpoints, logs and commands use this interface and ask for no particular task. A task of your own is a
subclass of one of the tasks here, of `TextTask` (a stream of tokens) or of `ExampleTask` (one example at a time), and
an entry of `TASKS` (docs/extending.md).
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple, Protocol

from torch import Tensor

from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Figure
from glassformer.processors.tokenizers import Tokenizer
from glassformer.tasks.settings import Choice, DataSettings, RunSettings, TaskSettings, TokenizerSettings

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = tuple[Tensor, ...]


class Loss(NamedTuple):
    """What a batch costs. The loop divides sum by count once, over all micro-batches and processes of a step.

    sum: 0-dim, fp32 or float64. count: targets; an int on the CPU, a 0-dim tensor on a GPU and inside `torch.compile`,
    where reading it would wait. metrics: (sum, count) by name, reduced in the same way into metrics.jsonl; every batch
    gives the same names.
    """

    sum: Tensor
    count: int | Tensor  # type: ignore[assignment]  # `tuple` has a method of this name
    metrics: Mapping[str, tuple[Tensor, int | Tensor]] = MappingProxyType({})


class Score(NamedTuple):
    """What the best model of a run is: the metric of an evaluation, as metrics.jsonl names it, and its direction."""

    name: str = "val_loss"
    direction: Literal["lower", "higher"] = "lower"

    @property
    def metric(self) -> str:
        """The name in `Metrics`."""
        return self.name.removeprefix("val_")

    @property
    def train_name(self) -> str:
        """The same metric on a part of the training split, as metrics.jsonl names it."""
        return f"train_{self.metric}_eval"

    @property
    def words(self) -> str:
        """ "validation loss"."""
        return f"validation {self.metric.replace('_', ' ')}"

    def gain(self, value: float, before: float) -> float:
        """By how much a value is better than another; negative: worse."""
        return before - value if self.direction == "lower" else value - before

    def is_better(self, value: float, best: float | None) -> bool:
        """Whether a value beats the best so far (None: there is none). NaN and infinities never do."""
        return math.isfinite(value) and (best is None or self.gain(value, best) > 0)


class Batches(Protocol):
    """An endless stream of training batches: tensors with one row a sequence. Its position is part of a checkpoint."""

    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Source(Protocol):
    """The data that a task was opened with.

    tokenizer: of what the model writes. source_tokenizer: of what it reads, where that is another one. labels: the
    names of the classes, if any. key: changes when the data do. n_train: tokens of a text, or examples, to learn from.
    """

    tokenizer: Tokenizer
    source_tokenizer: Tokenizer | None
    labels: tuple[str, ...]

    @property
    def key(self) -> str: ...
    @property
    def n_train(self) -> int: ...


class Opening(NamedTuple):
    """What a task is opened with: three tables of a recipe, and a model that exists already.

    folder: of the model whose processors are taken. inherited: because the run starts from it. labels: of a model that
    is only measured; left out, those of the training examples.
    """

    data: DataSettings
    tokenizer: TokenizerSettings
    settings: dict[str, Any]
    folder: Path | None = None
    inherited: bool = False
    labels: tuple[str, ...] = ()


class Task:
    """One use of a model. Made by itself it can collate examples and compute losses; `open` gives it its data.

    Args:
        settings: the keys of [task], as in `Settings`.

    Raises:
        UsageError: a setting is unknown or out of range.
    """

    Settings: ClassVar[type[TaskSettings]] = TaskSettings
    score: ClassVar[Score] = Score()
    reads: ClassVar[str] = "text"  # what the model takes in: its `reads`
    asks: ClassVar[str]  # what the model must answer: one of the words in `answers` of a model (`kinds_that_answer`)
    head: ClassVar[Mapping[str, Any]] = {"token_head": "none"}  # fields of a configuration that no data change
    defaults: ClassVar[Mapping[str, Any]] = {"block_size": 256}  # fields of a Transformer that nothing else sets
    # stand for `model_fields` until the data are read; None: without data no shape can be checked
    placeholders: ClassVar[Mapping[str, Any] | None] = {
        "vocab_size": 3,
        "source_vocab_size": 3,
        "start_token": 0,
        "end_token": 1,
        "pad_token": 2,
    }
    # whether time and memory follow from `text_sizes` and the shape (there is a plan) and `collate` takes rows of ids
    planned: ClassVar[bool] = False
    paths: ClassVar[tuple[str, ...]] = ()  # of [task], those that may name a file or a folder
    learns_specials: ClassVar[bool] = False  # whether it reads tokenizer.specials
    data_keys: ClassVar[tuple[str, ...]] = ()  # of [data], those that it reads beside `source`; others are refused
    on_policy: ClassVar[bool] = False  # whether batches depend on the present weights, so that none is made ahead
    fixed_shape: ClassVar[bool] = False  # whether all training batches have one shape, so that compiling pays
    command: ClassVar[str] = ""  # of `glassformer`, which uses such a model
    tuned: ClassVar[bool] = False  # whether `glassformer tune` names it
    stays_near_start: ClassVar[bool] = False  # near the model that it starts from: a smaller learning rate
    extra_passes: int = 0  # forward passes beside the model's own that a training row costs, such as a reference's
    # a rise of the loss smaller than this is no divergence, in the unit of the loss; None: a quarter of what the run
    # has gained so far
    alarm: ClassVar[float | None] = 1.0
    source: Any = None
    run: RunSettings = RunSettings()
    # a module that is trained beside the model and kept in checkpoints alone, such as PPO's critic; `begin` makes it
    companion: Any = None
    # takes a line about long work before the first step
    log: Callable[[str], None] = staticmethod(lambda line: None)

    def __init__(self, **settings: Any):
        self.settings: Any = self.Settings.make(**settings)

    @classmethod
    def open(cls, opening: Opening) -> tuple[Self, list[Choice]]:
        """The task on its data, and what was decided because the recipe leaves it open.

        Raises:
            UsageError, DataError, TokenizerError: the settings or the data are wrong.
        """
        choices: list[Choice] = []
        source = cls.read(opening, choices)
        task = cls(**cls.arguments(source), **opening.settings)
        task.source = source
        return task, choices

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> Any:
        """The data, as a `Source`; what is decided on the way is added to `choices`."""
        raise NotImplementedError

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        """The arguments of the constructor that the data decide, such as special tokens.

        Raises:
            UsageError: the data lack one.
        """
        return {}

    def with_run(self, run: RunSettings) -> Self:
        """The same task with the numbers of a run."""
        task = copy.copy(self)
        task.run = run
        return task

    # ---- what the data decide ----

    @property
    def tokenizer(self) -> Tokenizer:
        """Of what the model writes."""
        return self.source.tokenizer  # type: ignore[no-any-return]

    @property
    def source_tokenizer(self) -> Tokenizer | None:
        """Of what the model reads, where that is another one."""
        return self.source.source_tokenizer  # type: ignore[no-any-return]

    @property
    def processor(self) -> Any:
        """What is saved with the model: the processor of what it writes, or, of an encoder, of what it reads."""
        return self.tokenizer

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes, if any."""
        return self.source.labels  # type: ignore[no-any-return]

    @property
    def longest(self) -> int:
        """Tokens of an example, which 19 of 20 do not exceed; 0: there are no examples."""
        return 0

    @property
    def usual(self) -> float:
        """Tokens that an example has on the average, those of all its sequences."""
        return self.longest

    def training_rows(self, T: int) -> int:
        """Sequences of a pass over the training split, in windows of T tokens."""
        return self.source.n_train  # type: ignore[no-any-return]

    @property
    def n_answers(self) -> int:
        """Among how many answers the model chooses: a blind guess costs the logarithm."""
        return len(self.labels) or self.tokenizer.vocab_size

    def text_sizes(self) -> dict[str, int]:
        """Tokens of both splits of a text (train_tokens, val_tokens): what sizes and a plan start from."""
        raise NotImplementedError

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        """What a model reads of some data (not what it answers), text by text.

        Raises:
            DataError: there is no text, or it cannot be read.
        """
        raise DataError(f"{data.source} holds no text")

    def model_fields(self) -> dict[str, Any]:
        """The fields of a model's configuration that the data decide: vocabulary, special tokens, classes."""
        return {"vocab_size": self.tokenizer.vocab_size}

    def facts(self) -> dict[str, Any]:
        """What recipe.toml keeps of the data, for the reader."""
        return {}

    def warnings(self) -> list[str]:
        """What a person should know about the data before the first step."""
        return []

    def check(self, config: Any) -> None:
        """Raise `DataError` unless there is something to learn from and to measure on.

        config: of the model; None: nothing will be trained.
        """

    # ---- what a run does ----

    def begin(self, model: Any) -> None:
        """Called in each process before `batches`, in new and resumed runs alike, with the model to be trained: a task
        that rolls out keeps it. A frozen reference is loaded from `run.start_from`."""

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """This process's part of every step."""
        raise NotImplementedError

    def collate(self, examples: Sequence[Any], random: Any) -> Batch:
        """Examples -> tensors with one row an example. All randomness comes from `random`, a numpy `Generator`."""
        raise NotImplementedError

    def loss(self, model: Any, batch: Batch) -> Loss:
        """What is trained."""
        raise NotImplementedError

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """What is reported: the plain loss of each row of a batch."""
        raise NotImplementedError

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        """The present model on a split, or on a part of it that is the same at each call: of the validation split
        `run.eval_batches` batches, of others as much, spread evenly.

        Raises:
            UsageError: there is no such split.
        """
        raise NotImplementedError

    def sample(self, model: Any, step: int) -> list[Figure]:
        """What the model makes of something, to look at along the way."""
        return []

    def example_batch(self, model: Any) -> Batch:
        """A held-out batch, on the CPU, to look at the activations of."""
        raise NotImplementedError

    def causes(self, history: Sequence[Mapping[str, float]]) -> Mapping[str, str]:
        """What the metrics of a run show to be wrong, in words with the next step, by a short name; the monitor gives
        each once.

        history: the time between two evaluations, oldest first (the first one and the last ones): `steps`, the mean of
        each metric of `loss`, and what the evaluation found, as val_NAME.
        """
        return {}

    # ---- what `glassformer evaluate` adds ----

    def extra_scores(self, model: Any, split: str = "validation") -> Any:
        """Further measures of a trained model, on a split where they need one (an object with `to_dict` and `lines`),
        or None.

        Raises:
            DataError: what they are measured on cannot be read.
        """
        return None

    def score_answers(self, model: Any, *, split: str = "test", beam: int = 4, limit: int | None = None) -> Any:
        """Let the model answer a split in free form, and compare.

        Raises:
            UsageError: this task has no such answers.
        """
        raise UsageError("this run does not answer sentences with sentences; leave out --answers")
