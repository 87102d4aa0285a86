"""Trajectories by name or from a file. The named sets are rolled out by code: the same ones each time."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glassformer.errors import DataError, did_you_mean, plural
from glassformer.files import cache_folder

if TYPE_CHECKING:
    from glassformer.data.trajectories import Trajectories, Trajectory

VERSION = 1  # of what is rolled out: a change makes new files in the cache
_POLICIES = 71  # stream of random numbers


@dataclass(frozen=True)
class TrajectorySet:
    """Episodes of several policies in one environment."""

    name: str
    about: str
    environment: str
    policies: tuple[tuple[str, int], ...]
    """names of `policies_of`, and how many episodes of each"""
    license: str = "MIT (rolled out by code)"
    origin: str = "made by code; needs gymnasium"

    @property
    def count(self) -> int:
        """Episodes."""
        return sum(n for _, n in self.policies)

    @property
    def file(self) -> Path:
        """In the cache."""
        return cache_folder() / "trajectories" / f"{self.name}-{VERSION}.npz"

    def trajectories(self, *, quiet: bool = False) -> Trajectories:
        """The episodes, out of the cache where they were rolled out before."""
        from glassformer.data.trajectories import read_trajectories

        try:
            return read_trajectories(self.file)
        except DataError:  # missing, or damaged: made again
            pass
        if not quiet:
            print(f"rolling out {self.count:,} episodes of {self.environment}, once ...", file=sys.stderr)
        found = self.roll_out()
        found.save(self.file)
        return found

    def roll_out(self) -> Trajectories:
        """Every episode with a seed of its own.

        Raises:
            MissingExtraError: without gymnasium.
        """
        from glassformer.data.batches import philox
        from glassformer.data.environments import make_environment, roll_out
        from glassformer.data.trajectories import Trajectories

        env, makers = make_environment(self.environment), policies_of()
        episodes: list[Trajectory] = []
        for name, count in self.policies:
            for _ in range(count):
                number = len(episodes)
                policy = makers[name](env, philox(0, _POLICIES, number))
                episodes.append(roll_out(env, policy, seed=number))
        return Trajectories(episodes, self.environment)


def policies_of() -> dict[str, Any]:
    """What makes a policy of an environment and random numbers, by name."""
    from glassformer.data import environments as e

    return {
        "random": e.random_policy,
        "cartpole-expert": e.cartpole_expert,
        "cartpole-drifting": e.cartpole_drifting(3, 20),
        "cartpole-drifting-fast": e.cartpole_drifting(6, 20),
        "cartpole-noisy": e.noisy(e.cartpole_expert, 0.4, 1.0),
        "cartpole-noisier": e.noisy(e.cartpole_expert, 0.5, 1.0),
        "cartpole-expert-noisy": e.noisy(e.cartpole_expert, 0.0, 0.3),
        "pendulum-expert": e.pendulum_expert,
        "pendulum-noisy": e.noisy(e.pendulum_expert, 0.2, 1.0),
    }


TRAJECTORY_SETS: dict[str, TrajectorySet] = {
    chosen.name: chosen
    for chosen in (
        TrajectorySet(
            "cartpole-mixed",
            "CartPole: 20 episodes of an expert among 580 that drift off the track, are noisy or random",
            "CartPole-v1",
            (("cartpole-expert", 20), ("cartpole-drifting", 160), ("cartpole-noisy", 200), ("random", 220)),
        ),
        TrajectorySet(
            "cartpole-thin",
            "CartPole: 10 episodes of an expert among 590 that drift off the track, are noisy or random",
            "CartPole-v1",
            (
                ("cartpole-expert", 10),
                ("cartpole-drifting-fast", 180),
                ("cartpole-noisier", 190),
                ("random", 220),
            ),
        ),
        TrajectorySet(
            "cartpole-noisy-experts",
            "CartPole: 10 episodes of a slightly noisy expert among 590 that drift off the track, are noisy or random",
            "CartPole-v1",
            (
                ("cartpole-expert-noisy", 10),
                ("cartpole-drifting-fast", 180),
                ("cartpole-noisier", 190),
                ("random", 220),
            ),
        ),
        TrajectorySet(
            "pendulum-mixed",
            "Pendulum: 20 episodes of an expert among 480 that are noisy or random",
            "Pendulum-v1",
            (("pendulum-expert", 20), ("pendulum-noisy", 360), ("random", 120)),
        ),
        TrajectorySet(
            "key-to-door-random",
            "a grid with a key and, much later, a door: random walks",
            "KeyToDoor-v0",
            (("random", 10_000),),
        ),
    )
}


def load_trajectories(
    name_or_path: str | os.PathLike[str], *, quiet: bool = False
) -> tuple[dict[str, list[Trajectory]], str | None]:
    """The episodes of a named set or a file by split, and their environment. A twentieth of the episodes validates and
    a twentieth tests: the same ones each time.

    Raises:
        DataError: there is no such set or file; it is damaged, or its arrays do not fit together.
        MissingExtraError: a set is to be rolled out without gymnasium.
    """
    from glassformer.data.example_splits import SPLITS, split_by_group
    from glassformer.data.trajectories import read_trajectories

    if (known := TRAJECTORY_SETS.get(str(name_or_path))) is not None:
        found = known.trajectories(quiet=quiet)
    elif not Path(name_or_path).expanduser().is_file():
        near = did_you_mean(str(name_or_path), TRAJECTORY_SETS)
        raise DataError(f"{name_or_path}: no such file or set of trajectories; {near}")
    else:
        found = read_trajectories(name_or_path)
    try:
        splits = split_by_group([(episode, str(number)) for number, episode in enumerate(found.episodes)])
    except DataError:
        n = plural(len(found.episodes), "episode")
        raise DataError(f"{name_or_path}: {n}; training, validation and test need one each: give more") from None
    return {split: splits[split] for split in SPLITS}, found.environment
