"""Version 0.1's commands, recipes and run folders still work; runs that were stopped after 8 of 13 steps continue.

`make_old_runs.py` made the runs and `expected.json` with that version. Other machines round differently, so numbers are
equal to one in a thousand.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import glassformer

from glassformer.recipes import read_recipe
from glassformer.recipes.reading import tomllib
from glassformer.tasks import task_kind

__all__ = ["glassformer"]

HERE = Path(__file__).parent
OLD, RECIPES = HERE / "run-format-2", HERE / "recipes-0.1"
COMMANDS = json.loads((HERE / "commands-0.1.json").read_text())
RENAMED = {"chance": "sampling_probability"}  # keys of JSON since 0.1
EXPECTED, EVERY_KEY = json.loads((OLD / "expected.json").read_text()).values()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the old runs and their data, the current folder of `glassformer`."""
    return Path(shutil.copytree(OLD, tmp_path, dirs_exist_ok=True))


@pytest.fixture
def command(glassformer):
    """`command(*words)`: standard output of a command that succeeds."""

    def call(*words: Any) -> str:
        done = glassformer(*words)
        assert done.code == 0, done.err
        return done.out

    return call


def close(found: Any, expected: Any) -> bool:
    """Everything in the old answer is in the new one; numbers to one in a thousand."""
    if isinstance(expected, dict):
        return all(close(found[RENAMED.get(key, key)], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-3, abs=1e-6))
    return bool(found == expected)


def logged(run: Path, key: str) -> list[float]:
    lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [line[key] for line in lines if key in line]


def old_settings(path: Path) -> dict[str, Any]:
    """The sections of an old recipe, the task by the names of today."""
    sections = tomllib.loads(path.read_text())
    sections["task"] = sections.pop("objective", {})
    if kind := sections["task"].get("kind"):
        sections["task"]["kind"] = task_kind(kind)
    return sections


def changed(found: dict[str, Any], old: dict[str, Any]) -> list[str]:
    return [name for name, section in old.items() if name != "name" and not close(found[name], section)]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_accepts_its_old_options(name: str, command):
    shown = command(*name.split(), "--help").split("\nOptions:")[1]
    assert set(COMMANDS[name].split()) <= set(re.findall(r"(?<=[\s/])--?[a-z][a-z0-9-]*(?=[\s,])", shown))


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_continues_as_if_it_had_not_stopped(name: str, folder: Path, command):
    command("resume", name, "--json", "--quiet")
    assert close(logged(folder / name, "loss"), EXPECTED[name]["losses"])
    assert close(logged(folder / name, "val_loss"), EXPECTED[name]["val_losses"])
    assert (folder / name / "report.html").exists()


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_is_evaluated_and_answers_as_before(name: str, folder: Path, command):
    evaluated = json.loads(command("evaluate", name, "--json"))
    assert close(evaluated, EXPECTED[name]["evaluate"]), evaluated
    words = [word.replace(".", " ") for word in EXPECTED[name]["question"].replace("RUN", name).split()]
    answered = json.loads(command(*words))
    assert close(answered, EXPECTED[name]["answer"]), answered


def test_another_answer_would_fail():
    expected = EXPECTED["translation"]["answer"]
    other = json.loads(json.dumps(expected))
    other[0]["answer"]["log_probability"] *= 1.002
    assert close(expected, expected) and not close(other, expected)


def test_a_new_run_starts_from_an_old_one(folder: Path, command):
    """`training.start_from`, and a comparison of an old run with a new one."""
    words = ["training.start_from=decoder", "training.steps=2", "training.device=cpu", "training.compile=off"]
    command("train", "--data", "play.txt", *words, "--out", "new", "--quiet", "--json")
    command("resume", "decoder", "--quiet")
    assert "training.start_from" in json.loads(command("runs", "decoder", "new", "--json"))["settings"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_an_old_recipe_has_the_same_settings(path: Path):
    assert changed(read_recipe(str(path)).model_dump(mode="json"), old_settings(path)) == []


def test_a_recipe_with_every_old_key_trains_as_before(folder: Path, command):
    command("train", RECIPES / "every-key.toml", "--out", "run", "--quiet", "--json")
    assert close(logged(folder / "run", "loss"), EVERY_KEY)
    old = old_settings(RECIPES / "every-key.toml")
    old["data"]["source"] = str(folder / "play.txt")
    assert changed(tomllib.loads((folder / "run" / "recipe.toml").read_text()), old) == []
