"""Recipes of version 0.1 mean what they meant; its run folders, stopped after 8 of 13 steps, go on and answer as then.

`make_old_runs.py` made them with that version, and `expected.json`: what it came to there. Other machines round
differently, so numbers are equal to one in a thousand.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import glassformer

from glassformer.recipes import read_recipe
from glassformer.recipes.reading import tomllib
from glassformer.tasks import task_kind

__all__ = ["glassformer"]

OLD = Path(__file__).parent / "run-format-2"
RECIPES = Path(__file__).parent / "recipes-0.1"
RENAMED = {"chance": "sampling_probability"}  # keys of JSON since 0.1
EXPECTED, EVERY_KEY = json.loads((OLD / "expected.json").read_text()).values()


@pytest.fixture
def folder(tmp_path) -> Path:
    """A copy of the old runs and their data, the current folder of `glassformer`."""
    return Path(shutil.copytree(OLD, tmp_path, dirs_exist_ok=True))


def close(found: Any, expected: Any) -> bool:
    """Everything in the old answer is in the new one; numbers to one in a thousand."""
    if isinstance(expected, dict):
        return all(close(found[RENAMED.get(key, key)], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(close, found, expected))
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-3, abs=1e-6))
    return bool(found == expected)


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_continues_as_if_it_had_not_stopped(name: str, folder: Path, glassformer):
    done = glassformer("resume", name, "--json", "--quiet")
    assert done.code == 0, done.err
    metrics = [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
    assert close([line["loss"] for line in metrics], EXPECTED[name]["losses"])
    assert close([line["val_loss"] for line in metrics if "val_loss" in line], EXPECTED[name]["val_losses"])
    assert (folder / name / "report.html").exists()


@pytest.mark.parametrize("name", EXPECTED)
def test_an_old_run_is_evaluated_and_answers_as_before(name: str, folder: Path, glassformer):
    evaluated = glassformer("evaluate", name, "--json")
    assert evaluated.code == 0, evaluated.err
    assert close(json.loads(evaluated.out), EXPECTED[name]["evaluate"]), evaluated.out
    words = [word.replace(".", " ") for word in EXPECTED[name]["question"].replace("RUN", name).split()]
    answered = glassformer(*words)
    assert close(json.loads(answered.out), EXPECTED[name]["answer"]), answered.out


def test_another_answer_would_be_noticed():
    expected = EXPECTED["translation"]["answer"]
    other = json.loads(json.dumps(expected))
    other[0]["answer"]["log_probability"] *= 1.002
    assert close(expected, expected) and not close(other, expected)


def test_an_old_run_is_a_beginning_for_a_new_one(folder: Path, glassformer):
    """`training.start_from`, and a comparison of an old run with a new one."""
    words = ["training.start_from=decoder", "training.steps=2", "training.device=cpu", "training.compile=off"]
    done = glassformer("train", "--data", "play.txt", *words, "--out", "new", "--quiet", "--json")
    assert done.code == 0, done.err
    assert glassformer("resume", "decoder", "--quiet").code == 0
    compared = glassformer("runs", "decoder", "new", "--json")
    assert compared.code == 0, compared.err
    assert "training.start_from" in json.loads(compared.out)["settings"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_an_old_recipe_sets_what_it_set(path: Path):
    """Every key of it, by its name of today."""
    old = tomllib.loads(path.read_text())
    old["task"] = old.pop("objective", {})
    if kind := old["task"].get("kind"):
        old["task"]["kind"] = task_kind(kind)
    found = read_recipe(str(path)).model_dump(mode="json")
    assert [name for name, section in old.items() if name != "name" and not close(found[name], section)] == []


def test_a_recipe_with_every_old_key_trains_as_it_did(folder: Path, glassformer):
    done = glassformer("train", RECIPES / "every-key.toml", "--out", "run", "--quiet", "--json")
    assert done.code == 0, done.err
    metrics = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert close([line["loss"] for line in metrics], EVERY_KEY)
    written = tomllib.loads((folder / "run" / "recipe.toml").read_text())
    old = tomllib.loads((RECIPES / "every-key.toml").read_text())
    old["task"] = old.pop("objective")
    old["data"]["source"] = str(folder / "play.txt")
    assert [name for name, section in old.items() if not close(written[name], section)] == []
