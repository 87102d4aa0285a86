"""Whole small runs: what lies in the folder, interrupted equals uninterrupted, damage, divergence."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import torch
from tiny_runs import SMALL, Die, StopAfter

import glassformer as gf
from glassformer import recipes
from glassformer.errors import RunError
from glassformer.training import Interrupted, RunFolder, latest_checkpoint

TINY = [
    *SMALL, "training.steps=13", "training.micro_batch_size=3", "training.dropout=0.2", "training.eval_every=5",
    "training.checkpoint_every=4", "training.sample_every=5", "training.sample_tokens=7",
]  # fmt: skip


def weights(run: Path) -> dict[str, torch.Tensor]:
    model, _ = gf.load(run)
    return model.state_dict()


def assert_equal_runs(a: Path, b: Path) -> None:
    """Bit for bit: weights of the last checkpoints, optimizer, and all lines of the log but the times."""
    left, right = (sorted((run / "checkpoints").iterdir())[-1] for run in (a, b))
    assert left.name == right.name
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        assert (left / file).read_bytes() == (right / file).read_bytes()
    logs = []
    for run in (a, b):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        logs.append([{k: v for k, v in line.items() if "second" not in k and k != "mfu"} for line in lines])
    assert logs[0] == logs[1]
    assert (a / "samples.jsonl").read_text() == (b / "samples.jsonl").read_text()


@pytest.mark.parametrize(
    ("stop", "optimizer"),
    [*((stop, kind) for stop in (1, 6, 8) for kind in ("adamw", "muon")), (6, "sgd"), (8, "sgd training.momentum=0")],
)
def test_interrupted_and_resumed_is_the_same_run_bit_for_bit(play, tmp_path, optimizer, stop):
    settings = [*TINY, *f"training.optimizer={optimizer}".split()]
    recipes.train(None, settings, data=str(play), out=tmp_path / "whole")
    with pytest.raises(Interrupted, match=rf"stopped after step {stop}.*glassformer resume .*halves"):
        recipes.train(None, settings, data=str(play), out=tmp_path / "halves", callbacks=[StopAfter(stop)])
    torch.manual_seed(99)  # whatever else draws from the generator in between
    recipes.resume(tmp_path / "halves")
    assert_equal_runs(tmp_path / "whole", tmp_path / "halves")


def test_a_run_that_died_continues_from_its_checkpoint_and_logs_each_step_once(play, tmp_path):
    recipes.train(None, TINY, data=str(play), out=tmp_path / "whole")
    with pytest.raises(MemoryError):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "died", callbacks=[Die(11)])
    assert latest_checkpoint(RunFolder(tmp_path / "died"))[0].name == "step-000008"
    recipes.resume(tmp_path / "died")
    assert_equal_runs(tmp_path / "whole", tmp_path / "died")


def test_same_seed_same_weights_other_seed_others(play, tmp_path):
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        recipes.train(None, TINY, data=str(play), out=tmp_path / name, seed=seed)
    a, b, c = (weights(tmp_path / name) for name in "abc")
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert any(not torch.equal(a[name], c[name]) for name in a)


def test_the_run_folder_holds_what_it_promises(play, tmp_path):
    run = recipes.train(None, TINY, data=str(play), out=tmp_path / "run")
    lines = RunFolder(run.path).read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 14))
    keys = {"step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second", "mfu"}
    assert all(keys <= line.keys() for line in lines)
    evaluated = [line for line in lines if "val_loss" in line]
    assert [line["step"] for line in evaluated] == [5, 10, 13]  # as asked, and the last step
    assert all("val_bits_per_byte" in line for line in evaluated)
    assert lines[-1]["tokens"] == 13 * 6 * 11
    best = min(evaluated, key=lambda line: line["val_loss"])
    assert run.best_step == best["step"] and run.loss.loss == pytest.approx(best["val_loss"])
    names = {path.name for path in (run.path / "model").iterdir()}
    assert names == {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "generation_config.json",
    }
    samples = [json.loads(line) for line in (run.path / "samples.jsonl").read_text().splitlines()]
    assert [sample["step"] for sample in samples] == [5, 10]
    assert not list(tmp_path.rglob("*.part"))


def test_accumulation_changes_nothing_but_rounding(play, tmp_path):
    """Seven sequences at once, or 3 + 3 + 1 (the count is over the whole step, so the short one weighs less)."""
    for name, micro in (("once", 7), ("thrice", 3)):
        settings = [*TINY, "training.steps=5", "training.dropout=0", "training.batch_size=7"]
        recipes.train(None, [*settings, f"training.micro_batch_size={micro}"], data=str(play), out=tmp_path / name)
    once, thrice = (RunFolder(tmp_path / name).read_metrics() for name in ("once", "thrice"))
    for a, b in zip(once, thrice, strict=True):
        assert a["tokens"] == b["tokens"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-6)
        assert a["grad_norm"] == pytest.approx(b["grad_norm"], rel=1e-5)


def test_a_folder_that_holds_a_run_is_never_overwritten(play, tmp_path):
    recipes.train(None, TINY, data=str(play), out=tmp_path / "run")
    before = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    with pytest.raises(RunError, match=r"already holds a run; continue it: glassformer resume .* --out"):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run")
    assert before == {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "mine.txt").write_text("keep me")
    with pytest.raises(RunError, match="is not empty and holds no run"):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "notes")
    assert (tmp_path / "notes" / "mine.txt").read_text() == "keep me"


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(play, tmp_path):
    with pytest.raises(Interrupted):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[StopAfter(9)])
    newest, older = sorted((tmp_path / "run" / "checkpoints").iterdir())[::-1][:2]
    file = newest / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-10])
    shown: list[str] = []
    recipes.resume(tmp_path / "run", log=shown.append)
    assert any("step-000009: optimizer.safetensors is damaged" in line for line in shown)
    assert any(f"going on after step {int(older.name[5:])}" in line for line in shown)
    recipes.train(None, TINY, data=str(play), out=tmp_path / "whole")
    assert_equal_runs(tmp_path / "whole", tmp_path / "run")


def test_when_every_checkpoint_is_damaged_one_line_reports_it(play, tmp_path):
    with pytest.raises(Interrupted):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[StopAfter(5)])
    for state in (tmp_path / "run").rglob("state.json"):
        state.write_text("{")
    with pytest.raises(RunError, match=r"all checkpoints are damaged; step-000005: state.json is damaged"):
        recipes.resume(tmp_path / "run")


def test_resume_refuses_what_cannot_go_on(play, tmp_path):
    with pytest.raises(RunError, match=r"holds no run \(no recipe.toml\)"):
        recipes.resume(tmp_path / "nothing")
    recipes.train(None, TINY, data=str(play), out=tmp_path / "run")
    with pytest.raises(RunError, match=r"is finished \(13 steps\)"):
        recipes.resume(tmp_path / "run")
    with pytest.raises(Interrupted):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "half", callbacks=[StopAfter(3)])
    play.write_text(play.read_text() + "Speak.\n")
    with pytest.raises(RunError, match=r"has changed since"):
        recipes.resume(tmp_path / "half")


def test_training_works_outside_the_main_thread(play, tmp_path):
    """Signals can only be caught in the main thread; a notebook or a server trains in another."""
    done = []
    thread = threading.Thread(
        target=lambda: done.append(recipes.train(None, TINY, data=str(play), out=tmp_path / "run"))
    )
    thread.start()
    thread.join()
    assert done[0].steps == 13
