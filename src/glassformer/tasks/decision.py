"""Decision Transformer: which action led to the return that came of it? Asked for a return, such a model acts for it.

    returns-to-go   3    2    1          what was still to come
    states          s0   s1   s2
    actions         a0   a1   a2         asked for at each state, given all before it

Chen et al. 2021, https://arxiv.org/abs/2106.01345. Behaviour cloning is the same model without the returns
(`task.reads_returns=false`), and "10 % behaviour cloning" the same on the best tenth of the episodes (`task.best=0.1`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.batches import SeededBatches, philox
from glassformer.data.example_splits import spread
from glassformer.data.trajectories import Trajectory, n_actions_of
from glassformer.data.trajectory_sets import load_trajectories
from glassformer.errors import DataError, MissingExtraError, UsageError
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Figure
from glassformer.generation.play import play
from glassformer.processors.trajectory import LEAST_STD, TrajectoryProcessor, Triples, load_trajectory_processor
from glassformer.tasks.base import Batch, Batches, Loss, Opening, Score
from glassformer.tasks.examples import NonTextTask
from glassformer.tasks.losses import IGNORED, number_of, row_losses, summed_cross_entropy
from glassformer.tasks.returns import AskedAndGot, asked_and_got, episode_figures
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource

STREAM = 94  # of random numbers
BINS = 20  # of returns, from the worst to the best episode
ASKS = 6  # returns that an evaluation asks for, where the settings name none


class DecisionSettings(TaskSettings):
    """[task] of `decision`."""

    reads_returns: bool = True
    """False: behaviour cloning, which reads no return and so cannot be asked for one"""
    best: float = Field(default=1.0, gt=0, le=1)
    """share of the training episodes, those with the highest returns, that are learned from"""
    sampling: Literal["return", "episode", "step"] = "return"
    """which episodes a batch is cut from: `return`, all returns equally often; `episode`, all episodes; `step`, all
    steps, so that long episodes are read more often"""
    return_scale: float | None = Field(default=None, gt=0)
    """what returns are divided by; None: their mean size in training"""
    environment: str | None = None
    """id in gymnasium of what is played; None: the data's own"""
    ask: tuple[float, ...] | None = Field(default=None, min_length=1, max_length=100)
    """returns that `evaluate` asks for; None: six from the worst to the best of training"""
    episodes: int = Field(default=20, ge=1, le=10_000)
    """that `evaluate` plays for each of them"""


@dataclass(kw_only=True)
class TrajectorySource(SplitSource):
    """Episodes by split, and what makes arrays of them."""

    processor: TrajectoryProcessor
    tokenizer: None = None
    source_tokenizer: None = None

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation episode, or how it is read, does."""
        return self.digest(lambda e: (part.tobytes().hex() for part in e), begin=repr(self.processor))


class Decision(NonTextTask):
    """Cross-entropy of the action at each state; of continuous actions the squared error, scaled to -1 ... 1.

    A batch is (returns_BK, states_BKS, actions_BKA, timesteps_BK, targets): what `TrajectoryDecoder` reads, and the
    actions (B, K), continuous ones (B, K, A); -100 behind the end of an episode.
    """

    holds: ClassVar[str] = "trajectories"
    Settings = DecisionSettings
    reads: ClassVar[str] = "trajectory"
    asks: ClassVar[str] = "action"
    head: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {"block_size": 60, "positions": "none"}
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "play"
    fixed_shape: ClassVar[bool] = True
    source: TrajectorySource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> TrajectorySource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("trajectories have no tokenizer; leave out the keys of [tokenizer]")
        episodes, environment = load_trajectories(data.source)
        if data.max_examples:
            episodes = {**episodes, "train": spread(episodes["train"], data.max_examples)}
        n_actions_of([e for split in episodes.values() for e in split])
        if asked.best < 1:
            kept = max(1, round(asked.best * len(episodes["train"])))
            episodes = {**episodes, "train": sorted(episodes["train"], key=lambda e: -e.value)[:kept]}
        processor = None if opening.folder is None else load_trajectory_processor(opening.folder)
        if processor is None:
            processor = processor_of(episodes["train"], asked, asked.environment or environment)
            if asked.return_scale is None:
                choices.append(Choice("task.return_scale", processor.return_scale, "the mean size of a return"))
        return TrajectorySource(name=data.source, examples=episodes, processor=processor)

    @property
    def score(self) -> Score:  # type: ignore[override]
        return Score() if self.processor.n_actions else Score("val_squared_error")

    @property
    def n_answers(self) -> int:
        return self.processor.n_actions or 1

    def model_fields(self) -> dict[str, Any]:
        p = self.processor
        longest = max(len(e) for rows in self.source.examples.values() for e in rows)
        sizes = {"state_size": len(p.state_mean), "action_size": p.action_size, "max_timestep": longest}
        return {"vocab_size": 1, **sizes, "action_tanh": not p.n_actions}

    def facts(self) -> dict[str, Any]:
        returns = [e.value for e in self.source.examples["train"]]
        return {**super().facts(), "returns": {"lowest": min(returns), "highest": max(returns)}}

    # ---- batches ----

    def encode(self, split: str, T: int) -> list[Any]:
        """Every step once, in windows of T / 3 steps."""
        K, found = max(1, T // 3), []
        for triples in self.triples(split):
            found += [window(triples, start, K) for start in range(0, len(triples.returns), K)]
        return found

    def triples(self, split: str) -> list[Triples]:
        """The episodes of a split as the model reads them."""
        return [self.processor.encode(episode) for episode in self.source.examples[split]]

    def collate(self, examples: Sequence[tuple[np.ndarray, ...]], random: Any = None) -> Batch:
        """Windows (returns, states, actions, timesteps) -> a batch, shorter ones filled up behind."""
        K = max(len(example[0]) for example in examples)
        parts = [np.stack([_filled(part, K) for part in column]) for column in zip(*examples, strict=True)]
        returns_BK, states_BKS, actions_BKA, timesteps_BK = map(torch.from_numpy, parts)
        missing_BK = torch.arange(K) >= torch.tensor([len(example[0]) for example in examples])[:, None]
        if self.processor.n_actions:
            targets = actions_BKA.argmax(dim=-1).masked_fill(missing_BK, IGNORED)
        else:
            targets = actions_BKA.masked_fill(missing_BK[..., None], IGNORED)
        return returns_BK, states_BKS, actions_BKA, timesteps_BK, targets

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        size = self.run.batch_size // world_size
        return WindowBatches(self, split, batch_size=size, seed=self.run.seed, rank=rank, world_size=world_size)

    # ---- losses ----

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, K, A)."""
        actions_BKA: Tensor = model(*batch[:4])
        return actions_BKA

    def loss(self, model: Any, batch: Batch) -> Loss:
        found_BKA, targets = self.logits(model, batch), batch[-1]
        if self.processor.n_actions:
            return Loss(summed_cross_entropy(found_BKA, targets), number_of(targets))
        return Loss(_squares(found_BKA, targets).sum(), number_of(targets))

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        found_BKA, targets = self.logits(model, batch), batch[-1]
        if self.processor.n_actions:
            return row_losses(found_BKA, targets)
        counts_B = (targets != IGNORED).sum(dim=(1, 2))
        sums_B = _squares(found_BKA, targets).sum(dim=(1, 2), dtype=torch.float64)
        return RowLosses(sums_B, counts_B, torch.zeros_like(counts_B))

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        found = super().evaluate(model, split, whole=whole)
        if self.processor.n_actions:
            return found
        return Metrics({"squared_error": found["loss"]})

    # ---- play ----

    def returns_to_ask(self) -> list[float | None]:
        """What an evaluation asks for; [None] of a model that reads no returns."""
        if not self.processor.reads_returns:
            return [None]
        if self.settings.ask:
            return list(self.settings.ask)
        returns = [e.value for e in self.source.examples["train"]]
        return [round(value, 2) for value in np.linspace(min(returns), max(returns), ASKS).tolist()]

    def sample(self, model: Any, step: int) -> list[Figure]:
        """An episode that is asked for the best return; nothing without the environment."""
        asked = self.returns_to_ask()[-1]
        try:
            (episode,) = play(model, self.processor, target_return=asked, seed=1, render=True)
        except (MissingExtraError, UsageError):
            return []
        return episode_figures(episode)

    def extra_scores(self, model: Any, split: str = "validation") -> AskedAndGot | None:
        """Returns asked for against those got, in the environment; None where it is not known."""
        if self.processor.environment is None:
            return None
        try:
            return asked_and_got(model, self.processor, self.returns_to_ask(), self.settings.episodes)
        except (MissingExtraError, UsageError) as error:
            raise DataError(f"no episodes were played: {error}") from None


class WindowBatches(SeededBatches):
    """Training batches of windows: an episode by `task.sampling`, and a start anywhere in it."""

    def __init__(self, task: Decision, split: str, **numbers: int):
        super().__init__(**numbers)
        self.task, self.triples = task, task.triples(split)
        self.K = max(1, task.run.sequence_length // 3)
        episodes = task.source.examples[split]
        self.lengths = np.array([len(e) for e in episodes])
        self.shares = shares_of([e.value for e in episodes], self.lengths, task.settings.sampling)

    def batch(self, step: int) -> Batch:
        random = philox(self.seed, STREAM, step)
        chosen = random.choice(len(self.triples), size=self.together, p=self.shares)
        starts = (random.random(self.together) * self.lengths[chosen]).astype(np.int64)
        ours = slice(self.rank * self.batch_size, (self.rank + 1) * self.batch_size)
        pairs = zip(chosen[ours], starts[ours], strict=True)
        rows = [window(self.triples[number], int(start), self.K) for number, start in pairs]
        return self.task.collate(rows)


def shares_of(returns: Sequence[float], lengths: np.ndarray, sampling: str) -> np.ndarray:
    """How often each episode is read, (E,), adding up to 1. `return`: the range of the returns has `BINS` equal bins,
    and each that is not empty is read equally often."""
    weights = np.ones(len(lengths))
    if sampling == "step":
        weights = lengths.astype(np.float64)
    elif sampling == "return":
        low, high = min(returns), max(returns)
        bins = np.minimum((np.array(returns) - low) / max(high - low, 1e-12) * BINS, BINS - 1).astype(np.int64)
        weights = 1 / np.bincount(bins, minlength=BINS)[bins]
    return weights / weights.sum()


def window(triples: Triples, start: int, K: int) -> tuple[np.ndarray, ...]:
    """At most K steps: returns, states, actions, timesteps."""
    part = slice(start, start + K)
    returns, states, actions = triples.returns[part], triples.states[part], triples.actions[part]
    return returns, states, actions, np.arange(start, start + len(returns))


def processor_of(
    episodes: Sequence[Trajectory], settings: DecisionSettings, environment: str | None
) -> TrajectoryProcessor:
    """Mean and deviation of states, the size of returns and the bounds of actions, from training episodes."""
    states = np.concatenate([e.observations for e in episodes]).astype(np.float64)
    size = float(np.mean([abs(e.value) for e in episodes])) or 1.0
    n_actions = n_actions_of(episodes)
    bounds: dict[str, Any] = {}
    if not n_actions:
        actions = np.concatenate([e.actions for e in episodes])
        low, high = actions.min(axis=0).tolist(), actions.max(axis=0).tolist()
        bounds = {
            "action_low": tuple(low),
            "action_high": tuple(max(h, l + LEAST_STD) for l, h in zip(low, high, strict=True)),
        }
    return TrajectoryProcessor(
        state_mean=tuple(states.mean(axis=0).tolist()),
        state_std=tuple(np.maximum(states.std(axis=0), LEAST_STD).tolist()),
        return_scale=settings.return_scale or float(f"{size:.3g}"),
        n_actions=n_actions,
        **bounds,
        reads_returns=settings.reads_returns,
        best_return=max(e.value for e in episodes) if settings.reads_returns else None,
        environment=environment,
    )


def _filled(part: np.ndarray, K: int) -> np.ndarray:
    """(K, ...), zeros behind."""
    return np.pad(part, [(0, K - len(part)), *[(0, 0)] * (part.ndim - 1)])


def _squares(found_BKA: Tensor, targets_BKA: Tensor) -> Tensor:
    """Squared errors, 0 where there is no target."""
    squares_BKA = (found_BKA.float() - targets_BKA.float()).square()
    return squares_BKA.masked_fill(targets_BKA == IGNORED, 0.0)
