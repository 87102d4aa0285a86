"""Checkpoints: written behind the loop's back, whole or not at all, with every generator of random numbers."""

from __future__ import annotations

import json
import random
import shutil
import threading

import numpy as np
import pytest
import torch
from tiny_runs import SMALL, Die

from glassformer import recipes
from glassformer.errors import GlassformerError
from glassformer.files import atomic_folder, clear_litter
from glassformer.training import RunFolder, checkpoints
from glassformer.training.checkpoints import Background
from glassformer.training.random_state import random_state, set_random_state

TINY = [*SMALL, "model.n_layer=1", "training.steps=12", "training.eval_every=0", "training.checkpoint_every=4"]


def test_the_loop_continues_while_a_checkpoint_is_written(play, tmp_path, monkeypatch):
    """The writer waits until the loop is three steps further; what it writes is of the step that it was given."""
    run, waiting = tmp_path / "run", threading.Event()
    write_state = checkpoints.CheckpointWriter._write_state

    def slow(self, temporary, state):
        if state["step"] == 4:
            waiting.set()
            while len(RunFolder(run).read_metrics()) < 7:
                threading.Event().wait(0.002)
        write_state(self, temporary, state)

    recipes.train(None, TINY, data=str(play), out=tmp_path / "plain")
    monkeypatch.setattr(checkpoints.CheckpointWriter, "_write_state", slow)
    recipes.train(None, TINY, data=str(play), out=run)
    assert waiting.is_set()
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        ours, plain = (folder / "checkpoints" / "step-000004" / file for folder in (run, tmp_path / "plain"))
        assert ours.read_bytes() == plain.read_bytes()
    ours, plain = (
        json.loads((folder / "checkpoints" / "step-000004" / "state.json").read_text())
        for folder in (run, tmp_path / "plain")
    )
    assert ours["logs"].keys() == plain["logs"].keys() and ours["batches"] == plain["batches"]
    assert (run / "metrics.jsonl").read_bytes()[: ours["logs"]["metrics.jsonl"]].count(b"\n") == 4


def test_what_goes_wrong_in_the_background_is_raised_and_only_once():
    background, done = Background(), []

    def fail():
        raise GlassformerError("the disk is full")

    background.start(fail)
    with pytest.raises(GlassformerError, match="the disk is full"):
        background.start(lambda: done.append("never"))
    background.start(lambda: done.append("after"))
    background.wait()
    assert done == ["after"]


def test_nothing_is_written_any_more_when_a_run_has_ended_however_it_did(play, tmp_path, monkeypatch):
    """A library user resumes in the same process; a slow write must not meet it."""
    write_state, running = checkpoints.CheckpointWriter._write_state, []

    def slow(self, temporary, state):
        running.append("begun")
        threading.Event().wait(0.3)
        write_state(self, temporary, state)
        running.append("done")

    monkeypatch.setattr(checkpoints.CheckpointWriter, "_write_state", slow)
    with pytest.raises(MemoryError):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[Die(5)])
    assert running == ["begun", "done"]


def test_every_generator_is_put_back():
    def draw():
        return random.random(), random.gauss(), np.random.rand(), np.random.randn(), float(torch.rand(()))

    random.gauss()  # leaves a second number in store, which belongs to the state
    np.random.randn()
    state = json.loads(json.dumps(random_state()))
    first = draw()
    assert draw() != first
    set_random_state(state)
    assert draw() == first


def test_a_kill_while_a_checkpoint_is_written_leaves_the_one_before(play, tmp_path, monkeypatch):
    """The process ends between the last byte of step-000008 and its new name."""
    run = tmp_path / "run"

    class Killed(BaseException):
        pass

    def die(self, temporary, state):
        if state["step"] == 8:
            shutil.copytree(temporary, run / "checkpoints" / ".step-000008.abcdefgh.part")
            raise Killed
        write_state(self, temporary, state)

    write_state = checkpoints.CheckpointWriter._write_state
    recipes.train(None, TINY, data=str(play), out=tmp_path / "whole")
    monkeypatch.setattr(checkpoints.CheckpointWriter, "_write_state", die)
    with pytest.raises(Killed):
        recipes.train(None, TINY, data=str(play), out=run)
    monkeypatch.undo()
    shown: list[str] = []
    recipes.resume(run, log=shown.append)
    assert shown == ["going on after step 4 of 12"]
    assert not list(run.rglob("*.part"))
    a, b = (folder / "checkpoints" / "step-000012" / "optimizer.safetensors" for folder in (tmp_path / "whole", run))
    assert a.read_bytes() == b.read_bytes()


def test_a_crash_between_two_renames_is_undone(tmp_path, monkeypatch):
    """The old folder has been moved away, the new one has not got its name yet."""
    place = tmp_path / "model"
    place.mkdir()
    (place / "weights").write_text("old")
    import os

    rename = os.rename

    def die_at_the_second(a, b):
        if str(b) == str(place):
            os._exit(9)
        rename(a, b)

    child = os.fork()
    if child == 0:
        os.rename = die_at_the_second
        with atomic_folder(place, replace=True) as temporary:
            (temporary / "weights").write_text("new")
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
    assert not place.exists()
    clear_litter(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (place / "weights").read_text() == "old"


def test_litter_is_known_by_its_name(tmp_path):
    keep = [".gitignore", ".step-000009.abc.part", "notes.part", ".x.12345678.party"]
    for name in keep:
        (tmp_path / name).write_text("mine")
    (tmp_path / ".metrics.jsonl.a1b2c3d4.part").write_text("half")
    clear_litter(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(keep)


def test_another_processor_or_version_is_reported(play, tmp_path):
    with pytest.raises(MemoryError):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[Die(5)])
    recipe = tmp_path / "run" / "recipe.toml"
    lines = recipe.read_text().splitlines()
    processor = next(i for i, line in enumerate(lines) if line.startswith("processor = "))
    lines[processor] = 'processor = "Abacus 1"'
    recipe.write_text("\n".join(lines))
    shown: list[str] = []
    recipes.resume(tmp_path / "run", log=shown.append)
    assert shown[0].startswith("processor: Abacus 1 before, ") and shown[0].endswith(
        "equal to rounding, not to the bit"
    )
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert [event["text"] for event in events if event["kind"] == "resumed"] == shown
