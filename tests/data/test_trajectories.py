"""Trajectories in .npz files: written and read, what is wrong with one, and the named sets."""

from __future__ import annotations

import io
import random
import zipfile

import numpy as np
import pytest

from glassformer.data.trajectories import Trajectories, Trajectory, read_trajectories
from glassformer.data.trajectory_sets import TRAJECTORY_SETS, load_trajectories
from glassformer.errors import DataError, GlassformerError


def episodes(n: int = 40, continuous: bool = False) -> list[Trajectory]:
    """Of different lengths."""
    draw, found = np.random.default_rng(3), []
    for number in range(n):
        T = 3 + number % 5
        actions = draw.uniform(-2, 2, (T, 2)).astype(np.float32) if continuous else draw.integers(0, 3, T)
        found.append(Trajectory(draw.normal(size=(T, 4)).astype(np.float32), actions, np.ones(T, dtype=np.float32)))
    return found


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    rows = episodes(6)
    names = ("observations", "actions", "rewards")
    parts = {name: np.concatenate(columns) for name, columns in zip(names, zip(*rows, strict=True), strict=True)}
    return {**parts, "lengths": np.array([len(row) for row in rows])}


@pytest.mark.parametrize("continuous", [False, True])
def test_what_is_written_is_read(continuous, tmp_path):
    given = episodes(continuous=continuous)
    Trajectories(given, "CartPole-v1").save(tmp_path / "a.npz")
    found = read_trajectories(tmp_path / "a.npz")
    assert found.environment == "CartPole-v1" and len(found.episodes) == 40
    for ours, theirs in zip(given, found.episodes, strict=True):
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(ours, theirs, strict=True))
    splits, environment = load_trajectories(tmp_path / "a.npz")
    assert {name: len(rows) for name, rows in splits.items()} == {"train": 36, "validation": 2, "test": 2}
    assert environment == "CartPole-v1"


def test_returns_to_go_are_sums_of_what_comes():
    episode = Trajectory(np.zeros((4, 1)), np.zeros(4, dtype=int), np.array([1.0, 0.0, -2.0, 5.0]))
    assert episode.returns_to_go.tolist() == [4.0, 3.0, 3.0, 5.0] and episode.value == 4.0


def test_episodes_end_where_d4rl_says(arrays, tmp_path):
    lengths = arrays.pop("lengths")
    ends = np.zeros(int(lengths.sum()), dtype=bool)
    ends[np.cumsum(lengths) - 1] = True
    half = np.arange(len(ends)) < 12
    np.savez(tmp_path / "a.npz", **arrays, terminals=ends & half, timeouts=ends & ~half)
    assert [len(e) for e in read_trajectories(tmp_path / "a.npz").episodes] == lengths.tolist()


def changed(arrays, **changes):
    found = {**arrays, **changes}
    return {name: value for name, value in found.items() if value is not None}


WRONG = {
    "no array 'rewards'": {"rewards": None},
    "where episodes end": {"lengths": None},
    "did you mean observations": {"observation": np.zeros(3)},
    "not finite, at step 7": {"rewards": lambda a: np.where(np.arange(len(a["rewards"])) == 7, np.nan, a["rewards"])},
    "hold 3 steps": {"lengths": np.array([3])},
    "lengths": {"lengths": np.array([-1, 5])},
    "action 0.5 at step 0": {"actions": lambda a: a["actions"] * 0 + 0.5},
    "action -1": {"actions": lambda a: a["actions"] * 0 - 1},
    r"give \(N, S\)": {"observations": lambda a: a["observations"][:, 0]},
    "for the same N steps": {"actions": lambda a: a["actions"][:-1]},
    "are texts": {"rewards": lambda a: a["rewards"].astype(str)},
    "an array of object": {"rewards": lambda a: a["rewards"].astype(object)},
}


@pytest.mark.parametrize("message", WRONG)
def test_what_is_wrong_is_one_line(message, arrays, tmp_path):
    changes = {name: value(arrays) if callable(value) else value for name, value in WRONG[message].items()}
    np.savez(tmp_path / "a.npz", **changed(arrays, **changes))
    with pytest.raises(DataError, match=message) as error:
        read_trajectories(tmp_path / "a.npz")
    assert str(tmp_path / "a.npz") in str(error.value) and "\n" not in str(error.value)


def test_too_few_episodes_and_no_file(tmp_path):
    Trajectories(episodes(2)).save(tmp_path / "a.npz")
    with pytest.raises(DataError, match="2 episodes; training, validation and test"):
        load_trajectories(tmp_path / "a.npz")
    with pytest.raises(DataError, match="no such file or set of trajectories"):
        load_trajectories(tmp_path / "b.npz")


def test_a_header_that_promises_terabytes_is_refused_before_it_is_read(arrays, tmp_path):
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 40, 4)})
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("observations.npy", header.getvalue())
    with pytest.raises(DataError, match="16,777,216 MiB; an array may have 1,024"):
        read_trajectories(tmp_path / "a.npz")


def test_500_damaged_files_are_read_or_refused(arrays, tmp_path):
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    whole, chance, path, refused = (tmp_path / "a.npz").read_bytes(), random.Random(0), tmp_path / "b.npz", 0
    for _ in range(500):
        content = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            content[chance.randrange(len(content))] = chance.randrange(256)
        path.write_bytes(content[: chance.choice((len(content), chance.randrange(len(content))))])
        try:
            read_trajectories(path)
        except GlassformerError as error:
            refused += 1
            assert str(path) in str(error) and "\n" not in str(error)
    assert refused > 300


def test_a_set_is_rolled_out_once_and_the_same_each_time(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium", reason="needs the package gymnasium")
    import dataclasses

    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path))
    small = [dataclasses.replace(s, policies=tuple((p, 2) for p, _ in s.policies)) for s in TRAJECTORY_SETS.values()]
    for chosen in small:
        made, kept = chosen.trajectories(quiet=True), chosen.trajectories(quiet=True)
        assert chosen.file.is_file() and made.environment == kept.environment == chosen.environment
        again = chosen.roll_out()
        for a, b, c in zip(made.episodes, kept.episodes, again.episodes, strict=True):
            assert all(np.array_equal(x, y) and np.array_equal(x, z) for x, y, z in zip(a, b, c, strict=True))
        chosen.file.write_bytes(b"damaged")
        assert len(chosen.trajectories(quiet=True).episodes) == chosen.count
    cartpole, pendulum = (
        chosen.roll_out().episodes for chosen in small if chosen.name in ("cartpole-mixed", "pendulum-mixed")
    )
    assert [e.value for e in cartpole[:2]] == [500, 500] and all(e.value < 501 for e in cartpole[2:])
    assert all(e.value > -500 for e in pendulum[:2])
