"""Going on for longer: `resume RUN training.steps=N`, of a finished run or a stopped one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from command_line import files
from play import PLAY
from resolving import stopped_at

from glassformer import recipes
from glassformer.errors import RunError, UsageError
from glassformer.recipes.machine import Machine, processor
from glassformer.recipes.reading import tomllib
from glassformer.training import Extended, Schedule

WORDS = ["model.n_layer=1", "model.n_head=2", "model.n_embd=12", "model.block_size=11", "tokenizer.kind=characters",
         "training.batch_size=3", "training.dropout=0.2", "training.optimizer=muon", "training.warmup_steps=2",
         "training.eval_every=4", "training.checkpoint_every=4", "training.keep_checkpoints=99",
         "training.sample_every=0", "training.compile=off"]  # fmt: skip


def train(play: Path, name: str, *words: str) -> Path:
    done = recipes.train(None, [*WORDS, *words], data=str(play), out=play.parent / name)
    assert done is not None
    return done.path


def end(run: Path, step: int) -> list[bytes]:
    last = run / "checkpoints" / f"step-{step:06}"
    return [(last / name).read_bytes() for name in ("model/model.safetensors", "optimizer.safetensors")]


def rates(run: Path) -> list[float]:
    return [json.loads(line)["lr"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    play = tmp_path_factory.mktemp("finished") / "play.txt"
    play.write_text(PLAY, encoding="utf-8")
    return train(play, "run", "training.steps=12")


@pytest.mark.parametrize("schedule", ["constant", "noam"])
def test_a_finished_run_without_a_way_down_is_the_longer_one_bit_for_bit(play, schedule):
    longer = train(play, "longer", "training.steps=12", f"training.schedule={schedule}")
    run = train(play, "short", "training.steps=8", f"training.schedule={schedule}")
    shown: list[str] = []
    done = recipes.resume(run, ["training.steps=12"], log=shown.append)
    assert done is not None and done.steps == 12 and json.loads((run / "summary.json").read_text())["steps"] == 12
    assert end(run, 12) == end(longer, 12) and rates(run) == rates(longer)
    assert any("as if it had been planned so" in line for line in shown), shown


def test_so_is_one_that_was_stopped_before_its_way_down(play):
    """wsd of 20 steps comes down from step 12 on; stopped at 8 it is that of 28 steps."""
    words = ["training.schedule=wsd", "training.final_lr_fraction=0.1"]
    longer = train(play, "longer", "training.steps=28", *words)
    run = stopped_at(train(play, "short", "training.steps=20", *words), 8, "stopped")
    recipes.resume(run, ["training.steps=28"])
    assert end(run, 28) == end(longer, 28) and rates(run) == rates(longer)


@pytest.mark.parametrize("schedule", ["cosine", "linear", "wsd"])
def test_one_that_had_come_down_warms_up_again_and_reports_it(play, schedule):
    """From the last rate, up to that of a run planned for the new length, and down with it."""
    run = train(play, "run", "training.steps=12", f"training.schedule={schedule}", "training.final_lr_fraction=0.1")
    low, shown = rates(run)[-1], list[str]()
    recipes.resume(run, ["training.steps=40"], log=shown.append)
    planned = Schedule(schedule, 40, 2, 0.1)
    got = rates(run)
    assert got[11] == low and low < got[12] < got[13]  # two steps of twenty-eight warm up
    assert got[14:] == pytest.approx([got[14] / planned(14) * planned(step) for step in range(14, 40)])
    assert any("warms up again" in line and "40 steps" in line for line in shown), shown
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert any("training.steps = 40 (12 before)" in event["text"] for event in events)
    again = stopped_at(run, 20, "again")
    recipes.resume(again)
    assert end(again, 40) == end(run, 40) and rates(again) == got  # the rest of it is in recipe.toml


def test_twice(play):
    run = train(play, "run", "training.steps=8", "training.schedule=cosine")
    recipes.resume(run, ["training.steps=16", "training.eval_every=2"])
    recipes.resume(run, ["training.steps=24"])
    shown = tomllib.loads((run / "recipe.toml").read_text())
    assert shown["extended"] == [{"step": 8, "steps": 8}, {"step": 16, "steps": 16}]
    assert (shown["training"]["steps"], shown["training"]["eval_every"]) == (24, 2) and len(rates(run)) == 24


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("training.steps=8", ["training.steps=8", "12 steps are done", "more"]),
        ("training.learning_rate=0.1", ["training.learning_rate cannot change", "training.steps", "start_from"]),
        ("training.eval_batches=3", ["training.eval_batches cannot change"]),
        ("model.n_layer=2", ["model.n_layer cannot change", "training.start_from"]),
        ("training.stepz=20", ["unknown key training.stepz", "did you mean steps"]),
        ("training.steps=many", ["training.steps='many'", "whole number"]),
        ("steps=20", ["did you mean training.steps"]),
    ],
)
def test_what_may_not_change_is_refused_and_nothing_is_touched(finished, override, parts):
    run = finished
    before = files(run)
    with pytest.raises(UsageError) as refused:
        recipes.resume(run, [override])
    assert all(part in str(refused.value) for part in parts) and "\n" not in str(refused.value)
    assert files(run) == before


def test_a_finished_run_names_the_next_step_also_at_the_command_line(play, glassformer):
    run = train(play, "run", "training.steps=4")
    with pytest.raises(RunError, match=r"is finished \(4 steps\); .*glassformer resume \S+ training.steps=8"):
        recipes.resume(run)
    shown = glassformer("resume", run, "training.steps=6", "--quiet", "--json")
    assert shown.code == 0 and json.loads(shown.out)["steps"] == 6


def test_a_schedule_that_was_changed_twice_is_one_function():
    first = Extended(Schedule("linear", 10, 0, 0.0), Schedule("linear", 30, 0, 0.0), 10)
    second = Extended(first, Schedule("linear", 100, 0, 0.0), 30)
    assert [second(step) for step in range(30)] == [first(step) for step in range(30)]
    assert first.rewarm_steps == 2 and second.rewarm_steps == 7
    assert second(29) < second(30) < second(36) < second(37) == pytest.approx(0.63)


def test_the_machine_is_used_as_that_of_the_run_was():
    tf32, threads = torch.backends.cuda.matmul.allow_tf32, torch.get_num_threads()
    machine = Machine(device="cuda", threads=1, precision="fp32", compile=False, torch="1.0", processor=processor())
    try:
        torch.backends.cuda.matmul.allow_tf32 = False
        assert [line.split(":")[0] for line in machine.differences()] == ["torch"]
        assert torch.backends.cuda.matmul.allow_tf32 and torch.get_num_threads() == 1
    finally:
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.set_num_threads(threads)
