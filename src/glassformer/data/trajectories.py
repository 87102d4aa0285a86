"""Trajectories: what was seen, done and paid in each step of each episode, as an `.npz` file.

    observations   (N, S)              what was seen before each step, of all episodes one after the other
    actions        (N,) or (N, A)      whole numbers from 0: which action; else the numbers of a continuous one
    rewards        (N,)                what the step paid
    lengths        (E,)                steps of each episode; or, as D4RL has it, terminals and timeouts, (N,) each
    environment    a text              its id in gymnasium; may be missing

Nothing in a file is unpickled, and no array is read before its size is known.
"""

from __future__ import annotations

import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import DataError, did_you_mean, one_line
from glassformer.files import atomic_file

MAX_BYTES = 1 << 30
"""Of one array of a file."""
KEYS = ("observations", "actions", "rewards", "lengths", "terminals", "timeouts", "environment")


class Trajectory(NamedTuple):
    """An episode of T steps: observations (T, S) fp32, actions (T,) int64 or (T, A) fp32, rewards (T,) fp32."""

    observations: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def returns_to_go(self) -> np.ndarray:
        """The sum of the rewards from each step on: (T,) float64."""
        return np.cumsum(self.rewards[::-1], dtype=np.float64)[::-1]

    @property
    def value(self) -> float:
        """The return: the sum of all rewards."""
        return float(np.sum(self.rewards, dtype=np.float64))


@dataclass(frozen=True)
class Trajectories:
    """Episodes, and the id of the environment that they come from, if it is known."""

    episodes: list[Trajectory]
    environment: str | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an `.npz` file, whole or not at all."""
        parts: dict[str, Any] = {
            name: np.concatenate(arrays) for name, arrays in zip(KEYS, zip(*self.episodes, strict=True), strict=False)
        }
        parts["lengths"] = np.array([len(episode) for episode in self.episodes], dtype=np.int64)
        if self.environment is not None:
            parts["environment"] = np.array(self.environment)
        with atomic_file(path) as temporary, open(temporary, "wb") as file:
            np.savez_compressed(file, **parts)


def read_trajectories(path: str | os.PathLike[str]) -> Trajectories:
    """The episodes of an `.npz` file.

    Raises:
        DataError: it is missing, damaged or too large; a key is missing; shapes do not fit together; a number is not
            finite.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise DataError(f"{path}: there is no such file; check the path")
    arrays = _arrays(path)
    if missing := [name for name in KEYS[:3] if name not in arrays]:
        raise DataError(f"{path}: there is no array {missing[0]!r}; give {', '.join(KEYS[:3])} and lengths")
    observations, actions, rewards = (arrays[name] for name in KEYS[:3])
    _check_shapes(path, observations, actions, rewards)
    lengths = _lengths(path, arrays, len(rewards))
    actions = _actions(path, actions)
    rows = np.split(np.arange(len(rewards)), np.cumsum(lengths)[:-1])
    parts = observations.astype(np.float32), actions, rewards.astype(np.float32)
    environment = str(arrays["environment"]) if "environment" in arrays else None
    return Trajectories([Trajectory(*(part[row] for part in parts)) for row in rows], environment)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays with the names of `KEYS`; those of other names are refused."""
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name not in KEYS:
                    raise DataError(f"{path}: an array {one_line(repr(name), most=60)}; {did_you_mean(name, KEYS)}")
                with archive.open(member) as file:
                    found[name] = _array(f"{path}, {name}", file)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError) as error:
        raise DataError(
            f"{path}: no .npz file that can be read ({one_line(error, most=120)}); write it again"
        ) from None
    return found


def _array(where: str, file: Any) -> np.ndarray:
    """One array, whose header is read first."""
    version = np.lib.format.read_magic(file)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, in_columns, dtype = read_header(file)
    if dtype.hasobject or dtype.kind not in "biufU":
        raise DataError(f"{where}: an array of {one_line(dtype, most=60)}; give numbers")
    if (n_bytes := math.prod(shape) * dtype.itemsize) > MAX_BYTES:
        raise DataError(f"{where}: {n_bytes >> 20:,} MiB; an array may have {MAX_BYTES >> 20:,}: give fewer episodes")
    content = file.read(n_bytes)
    if len(content) < n_bytes:
        raise EOFError("an array ends early")
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if in_columns else "C")


def _check_shapes(path: Path, observations: np.ndarray, actions: np.ndarray, rewards: np.ndarray) -> None:
    given = f"observations {observations.shape}, actions {actions.shape}, rewards {rewards.shape}"
    fits = observations.ndim == 2 and actions.ndim in (1, 2) and rewards.ndim == 1
    if not fits or not len(rewards) == len(actions) == len(observations) or not all(observations.shape):
        raise DataError(f"{path}: {given}; give (N, S), (N,) or (N, A), and (N,) for the same N steps")
    for name, array in zip(KEYS, (observations, actions, rewards), strict=False):
        if array.dtype.kind not in "biuf":
            raise DataError(f"{path}: {name} are texts; give numbers")
        if not np.isfinite(array).all():
            step = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise DataError(f"{path}: {name} has a number that is not finite, at step {step:,}; leave its episode out")


def _actions(path: Path, actions: np.ndarray) -> np.ndarray:
    """(N,) int64 of one of several actions, (N, A) fp32 of continuous ones."""
    if actions.ndim == 2:
        return actions.astype(np.float32)
    if (wrong := np.flatnonzero((actions != np.floor(actions)) | (actions < 0) | (actions >= 1 << 16))).size:
        shown = f"{actions[wrong[0]]:g} at step {wrong[0]:,}"
        raise DataError(f"{path}: action {shown} is no whole number from 0; give continuous actions as (N, A)")
    return actions.astype(np.int64)


def _lengths(path: Path, arrays: dict[str, np.ndarray], n: int) -> np.ndarray:
    """Steps of each episode."""
    if "lengths" in arrays:
        lengths = arrays["lengths"]
        if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or (lengths < 1).any() or int(lengths.sum()) != n:
            total = int(lengths.sum()) if lengths.dtype.kind in "iu" else "no"
            raise DataError(f"{path}: lengths {lengths.shape} hold {total} steps where there are {n:,}; correct them")
        return lengths
    ends = [arrays[name].astype(bool) for name in ("terminals", "timeouts") if name in arrays]
    if not ends or any(end.shape != (n,) for end in ends):
        raise DataError(f"{path}: where episodes end is not given; give lengths (E,), or terminals and timeouts (N,)")
    last = np.flatnonzero(np.logical_or.reduce(ends)) + 1
    return np.diff([0, *last, *([n] if not len(last) or last[-1] < n else [])])


def n_actions_of(episodes: Sequence[Trajectory]) -> int:
    """How many discrete actions there are, 0 where they are continuous.

    Raises:
        DataError: some are of one kind and some of the other, or of other sizes.
    """
    shapes = {(e.observations.shape[1:], e.actions.shape[1:]) for e in episodes}
    if len(shapes) > 1:
        raise DataError("observations or actions of several sizes in one set; give one environment")
    return 0 if episodes[0].actions.ndim == 2 else 1 + max(int(e.actions.max()) for e in episodes)
