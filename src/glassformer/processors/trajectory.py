"""Trajectories to the three rows that a Decision Transformer reads, and back.

return-to-go   the sum of the rewards that are still to come, divided by `return_scale`
state          (observation - mean) / std
action         one of several: a row of zeros with a 1; continuous: from -1 (`action_low`) to 1 (`action_high`)
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import UsageError
from glassformer.processors.preprocessor_file import load_fields, save_fields

TYPE = "TrajectoryProcessor"
LEAST_STD = 1e-6  # of an observation that never changes


class Triples(NamedTuple):
    """T steps as a model reads them: returns (T,), states (T, S), actions (T, A), all fp32."""

    returns: np.ndarray
    states: np.ndarray
    actions: np.ndarray


@dataclass(frozen=True)
class TrajectoryProcessor:
    """Observations, actions and rewards of one environment.

    Raises:
        UsageError: numbers are missing, not finite, or zero where they divide.
    """

    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]
    return_scale: float = 1.0
    n_actions: int = 0
    """how many actions there are to choose from; 0: they are continuous"""
    action_low: tuple[float, ...] = ()
    action_high: tuple[float, ...] = ()
    """of continuous actions: what -1 and 1 stand for"""
    reads_returns: bool = True
    """False: every return is read as 0 (behaviour cloning)"""
    best_return: float | None = None
    """the highest return of the training episodes: what is asked for where nothing else is"""
    environment: str | None = None
    """id in gymnasium of where the trajectories come from"""

    def __post_init__(self) -> None:
        best = () if self.best_return is None else (self.best_return,)
        numbers = (*self.state_mean, *self.state_std, self.return_scale, *best, *self.action_low, *self.action_high)
        if not all(isinstance(n, (int, float)) and math.isfinite(n) for n in numbers):
            raise UsageError("a processor of trajectories needs finite numbers")
        if not self.state_mean or len(self.state_mean) != len(self.state_std) or min(self.state_std) <= 0:
            raise UsageError("state_mean and state_std need one number for each of the state, those of std > 0")
        if self.return_scale <= 0:
            raise UsageError(f"return_scale={self.return_scale} is too small; use more than 0")
        bounds = len(self.action_low), len(self.action_high)
        if type(self.n_actions) is not int or self.n_actions < 0 or (self.n_actions > 0) == bool(bounds[0]):
            raise UsageError("give n_actions, or else action_low and action_high of continuous actions")
        if bounds[0] != bounds[1] or any(l >= h for l, h in zip(self.action_low, self.action_high, strict=False)):
            raise UsageError("action_low and action_high need one number for each of the action, the first one smaller")

    @property
    def action_size(self) -> int:
        """Numbers of an action as a model reads it."""
        return self.n_actions or len(self.action_low)

    def encode(self, trajectory: Any) -> Triples:
        """The triples of a whole episode.

        trajectory: what has `observations` (T, S), `actions` (T,) or (T, A) and `rewards` (T,).

        Raises:
            UsageError: sizes differ from those of this processor.
        """
        to_go_T = np.cumsum(np.asarray(trajectory.rewards, dtype=np.float64)[::-1])[::-1]
        states = self.encode_states(trajectory.observations)
        return Triples(self.encode_returns(to_go_T), states, self.encode_actions(trajectory.actions))

    def decode(self, triples: Triples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Observations, actions and rewards; the rewards of a model that reads no returns are 0."""
        observations = triples.states * self._std + self._mean
        rewards = -np.diff(np.append(triples.returns, 0.0)) * self.return_scale
        return observations.astype(np.float32), self.decode_actions(triples.actions), rewards.astype(np.float32)

    def encode_returns(self, returns: Any) -> np.ndarray:
        """Returns-to-go of any shape, scaled."""
        scaled = np.asarray(returns, dtype=np.float64) / self.return_scale
        return (scaled if self.reads_returns else np.zeros_like(scaled)).astype(np.float32)

    def encode_states(self, observations: Any) -> np.ndarray:
        """(..., S).

        Raises:
            UsageError: an observation has another size.
        """
        observations = np.asarray(observations, dtype=np.float32)
        if observations.shape[-1:] != self._mean.shape:
            given = observations.shape[-1] if observations.ndim else "one number"
            raise UsageError(f"an observation of size {given}: the model reads {len(self._mean)}; give its environment")
        return (observations - self._mean) / self._std

    def encode_actions(self, actions: Any) -> np.ndarray:
        """(...) whole numbers, or (..., A), to (..., `action_size`).

        Raises:
            UsageError: an action is not one of them, or of another size.
        """
        actions = np.asarray(actions)
        if self.n_actions:
            if actions.dtype.kind not in "iu" or (
                actions.size and not 0 <= actions.min() <= actions.max() < self.n_actions
            ):
                raise UsageError(
                    f"an action is not one of the {self.n_actions} that the model knows: 0 to {self.n_actions - 1}"
                )
            return np.eye(self.n_actions, dtype=np.float32)[actions]
        if actions.dtype.kind not in "f" or actions.shape[-1:] != (self.action_size,):
            raise UsageError(f"the model knows continuous actions of {self.action_size} numbers; give those")
        low, high = (np.array(ends, dtype=np.float32) for ends in (self.action_low, self.action_high))
        return (2 * (actions - low) / (high - low) - 1).astype(np.float32)

    def decode_actions(self, actions: Any) -> np.ndarray:
        """The inverse; of logits, the most likely action. Continuous ones stay within their bounds."""
        actions = np.asarray(actions)
        if self.n_actions:
            return actions.argmax(axis=-1)
        low, high = (np.array(ends, dtype=np.float32) for ends in (self.action_low, self.action_high))
        return (low + (np.clip(actions, -1, 1) + 1) / 2 * (high - low)).astype(np.float32)

    @property
    def _mean(self) -> np.ndarray:
        return np.array(self.state_mean, dtype=np.float32)

    @property
    def _std(self) -> np.ndarray:
        return np.array(self.state_std, dtype=np.float32)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        save_fields(folder, TYPE, dataclasses.asdict(self))


def load_trajectory_processor(folder: str | os.PathLike[str]) -> TrajectoryProcessor | None:
    """The processor of a model folder; None where there is none: other programs write none.

    Raises:
        ModelFolderError: it is damaged.
    """
    return load_fields(folder, TYPE, lambda fields: TrajectoryProcessor(**{k: _tuples(v) for k, v in fields.items()}))


def _tuples(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
