"""The planner: its arithmetic against published runs, its probe, the loss curve, and predicted against actual."""

from __future__ import annotations

import json
import runpy
import socket
import sys
import time
from pathlib import Path

import pytest
import torch
from resolving import CPU, TINY, resolved

from glassformer.errors import DeviceError
from glassformer.models import flops_per_token
from glassformer.recipes import batch_size, compile_choice, loss_curve, read_recipe, train
from glassformer.recipes.plan import FINISH, LOOKING, Devices, against_actual, plan, predict
from glassformer.recipes.probe import Probe, probe
from glassformer.recipes.resolved import ResolvedRecipe
from glassformer.tasks import NextToken


@pytest.mark.parametrize(("flops", "share", "hours"), [(312e12, 1 / 3, 96), (989e12, 1 / 4, 38)])
def test_nanogpt_s_four_days_on_eight_a100(flops, share, hours):
    """README of nanoGPT: 600,000 steps of 0.5 M tokens in about four days; it reaches a third of 312 TFLOP/s. An H100
    reads them in 38 hours at a quarter."""
    made = plan("gpt2-124m", devices=8, device_memory=80e9, device_flops=flops, utilisation=share)
    assert made.seconds / 3600 == pytest.approx(hours, rel=0.15)
    assert made.tokens == 600_000 * 480 * 1024 and made.machine.devices == 8 and not made.machine.measured
    assert made.val_loss == pytest.approx(2.85, abs=0.2)  # told; Chinchilla's text and tokens are others
    assert any("openwebtext was not read" in note for note in made.notes)  # and yet it was planned
    assert "arithmetic" in made.basis["seconds"] and "Chinchilla" in made.basis["val_loss"]


def test_a_character_recipe_is_planned_in_characters(monkeypatch):
    """With its text, which comes with the package; and with one that cannot be read, whose vocabulary is assumed."""
    monkeypatch.setattr(socket, "socket", None)  # no network
    lecture = plan("shakespeare-char", probing=False)
    assert lecture.parameters == 10_745_088 and lecture.notes == []
    elsewhere = plan("shakespeare-char", ["data.source=fineweb-edu"], probing=False)
    assert elsewhere.parameters - lecture.parameters == (100 - 65) * 384
    assert "fineweb-edu was not read" in elsewhere.notes[0]
    assert "100 entries, about 46,000,000,000 tokens" in elsewhere.notes[0]


def test_a_small_text_with_a_probe(play, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = torch.get_rng_state()
    made = plan(None, [*TINY, "training.steps=40"], data=str(play))
    assert torch.equal(torch.get_rng_state(), before) and list(tmp_path.iterdir()) == [play]
    assert sum(made.parameters_by_part.values()) == made.parameters
    assert 0 < made.seconds_per_step < made.seconds and "timed here" in made.basis["seconds"]
    assert made.val_loss is None and "no curve" in made.basis["val_loss"]
    json.dumps(made.to_dict())


def test_a_probe_leaves_no_trace_and_scales_what_is_too_long(monkeypatch):
    config, t = resolved(None, *TINY)
    before = torch.get_rng_state()
    timed = probe(NextToken(), config, t, CPU, seconds=0.3)
    assert torch.equal(torch.get_rng_state(), before)
    assert timed.steps >= 1 and not timed.scaled and timed.took < 5
    assert min(timed.step, timed.evaluation_token) > 0 == timed.sample_token  # for want of a tokenizer
    from glassformer.recipes import probe as module

    monkeypatch.setattr(module, "peak_flops", lambda device, precision: 20.0 * flops_per_token(config).training * 11)
    assert probe(
        NextToken(), config, t, CPU, seconds=0.3
    ).scaled  # a machine on which only one sequence fits into the time


def test_a_short_run_is_not_compiled(monkeypatch):
    config, t = resolved(None, *TINY, "training.steps=3")
    assert compile_choice.compile_choice(NextToken(), config, t, CPU, 1) == (CPU, [])
    monkeypatch.setattr(compile_choice, "SLOWEST", 1e9)  # so it is tried
    _, (choice,) = compile_choice.compile_choice(NextToken(), config, t, CPU, 1)
    assert choice.value == "off" and "too short" in choice.why


def test_batch_size_auto_reports_its_choice(monkeypatch):
    rates = {1: 100.0, 2: 190.0, 4: 300.0, 8: 310.0, 16: 9e9}
    monkeypatch.setattr(batch_size, "tokens_per_second", lambda task, config, t, machine, n: rates[n])
    config, t = resolved(None, *TINY, "training.batch_size=auto")
    choice = batch_size.batch_size_choice(NextToken(), config, t, CPU, 10**9)
    assert choice.value == 4 and "no faster" in choice.why  # 310 is not a twentieth more than 300
    assert batch_size.batch_size_choice(NextToken(), config, t, CPU, 11 * 2 * 100).value == 2  # a hundredth of the text
    monkeypatch.setattr(batch_size, "available_memory", lambda device: -batch_size.resident_bytes() + 1000)
    with pytest.raises(DeviceError, match="not even one sequence fits"):
        batch_size.batch_size_choice(NextToken(), config, t, CPU, 10**9)


def test_batch_size_auto_in_a_run(play, tmp_path, monkeypatch):
    """Tried once, kept as a number, with its reason."""
    monkeypatch.setattr(batch_size, "tokens_per_second", lambda task, config, t, machine, n: 100.0 * min(n, 4))
    words = [word for word in TINY if "batch_size=" not in word]
    lines: list[str] = []
    run = train(None, [*words, "training.batch_size=auto", "training.steps=2"], data=str(play), out=tmp_path / "run",
                log=lines.append)  # fmt: skip
    text = (run.path / "recipe.toml").read_text()
    assert "batch_size = 4\nmicro_batch_size = 4\n" in text and run.tokens == 2 * 4 * 11
    assert sum("training.batch_size = 4" in line for line in lines) == 1 and "tokens/s measured here" in text


def test_everything_that_takes_time_is_counted(monkeypatch):
    """Start-up, the first step, evaluations of both splits and of the end, samples and files: by hand."""
    wanted = ["training.steps=40", "training.eval_every=10", "training.eval_batches=2", "training.sample_every=20",
              "training.sample_tokens=7", "training.checkpoint_every=10"]  # fmt: skip
    config, t = resolved(None, *TINY, *wanted)
    r = ResolvedRecipe.of(read_recipe(None), t, config=config, machine=CPU)
    timed = Probe(step=0.5, first=2.0, evaluation_token=1e-3, sample_token=0.25, steps=3, took=1.0, scaled=False)
    made = predict(r, Devices("cpu", 1, 1e9, None, True), train_tokens=500, val_tokens=70, timed=timed, before=11.0)
    windows = 2 * 3 * 11 + 3 * 11  # tokens of each evaluation: two batches of validation text, one of training text
    assert made.seconds_by_part == pytest.approx(
        {
            "start": 11.0 + 2.0,
            "steps": 40 * 0.5,
            "evaluations": 4 * (windows * 1e-3 + LOOKING * 0.5) + 70 * 1e-3,
            "samples": 2 * 7 * 0.25,
            "files": FINISH,
        },
        rel=1e-3,
    )
    assert made.seconds == sum(made.seconds_by_part.values())


def test_a_short_run_reports_how_long_all_of_it_took(play, tmp_path):
    """The whole command is predicted and measured, not the loop alone."""
    began = time.perf_counter()
    run = train(None, [*TINY, "training.steps=13"], data=str(play), out=tmp_path / "run", started=began - 3.0)
    took = time.perf_counter() - began
    shown = json.loads((tmp_path / "run" / "plan.json").read_text())
    assert run.seconds < run.whole_seconds - 3.0 <= took
    assert 3.0 < shown["seconds_by_part"]["start"] < 3.0 + took
    assert ("seconds", shown["seconds"], run.whole_seconds) == against_actual(shown, run.to_dict())[0][:3]
    shown = {"seconds": 60.0, "memory_bytes": {"peak": 300e6}, "val_loss": None}
    rows = against_actual(shown, {"seconds": 50.0, "peak_memory_bytes": 400_000_000, "val_loss": 1.6})
    assert rows == [("seconds", 60.0, 50.0, 1.2), ("peak memory, MB", 300.0, 400.0, 0.75)]


CHARACTERS = {"source": "tinyshakespeare", "tokenizer": "characters", "train_tokens": 1_003_854}


def test_the_curve_knows_runs_that_it_was_not_fitted_to():
    """Measured with the recipes' own commands: 1.647 (shakespeare-fast) and 1.913 (shakespeare-char-cpu)."""
    fast = {"optimizer": "muon", "parameters": 221_984, "tokens": 1300 * 1024, "block_size": 64}
    cpu = {"optimizer": "adamw", "parameters": 804_096, "tokens": 2000 * 768, "block_size": 64}
    for run, actual in ((fast, 1.647), (cpu, 1.913)):
        shown = loss_curve.predict_loss(**CHARACTERS, **run)
        assert shown.interval[0] < actual < shown.interval[1] and shown.loss == pytest.approx(actual, abs=0.15)
        assert "our own runs" in shown.basis


def test_more_of_everything_is_better_and_less_sure():
    run = {"optimizer": "muon", "parameters": 200_000, "tokens": 1_000_000, "block_size": 64}
    shown = loss_curve.predict_loss(**CHARACTERS, **run)
    for key in ("parameters", "tokens", "block_size"):
        assert loss_curve.predict_loss(**CHARACTERS, **{**run, key: 2 * run[key]}).loss < shown.loss
    beyond = loss_curve.predict_loss(**CHARACTERS, **{**run, "parameters": 10**8})
    assert beyond.interval[1] - beyond.interval[0] > 2 * (shown.interval[1] - shown.interval[0])
    assert "outside" in beyond.basis and "outside" not in shown.basis
    assert loss_curve.predict_loss(**{**CHARACTERS, "source": "my.txt"}, **run) is None


@pytest.fixture
def fit(monkeypatch):
    """The fit of `benchmarks/fit_loss_curve.py`."""
    pytest.importorskip("scipy")
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which benchmarks change
    return runpy.run_path(str(Path(__file__).parents[2] / "benchmarks" / "fit_loss_curve.py"))["fit"]


def test_the_file_is_what_its_runs_give(fit):
    kept = json.loads(loss_curve.FILE.read_text())
    again = fit(kept["runs"])
    assert again["coefficients"] == pytest.approx(kept["coefficients"], rel=1e-3) and again["n"] == len(kept["runs"])


def test_a_curve_is_found_again_from_losses_that_lie_on_it(fit):
    theta = [0.7, 20.0, 0.35, 0.37, 1.5, 80.0, 160.0]
    runs = [
        {"optimizer": optimizer, "parameters": n, "tokens": d, "block_size": T}
        for optimizer in ("muon", "adamw")
        for n in (10**4, 10**5, 10**6)
        for d in (10**5, 10**6)
        for T in (16, 256)
    ]
    fitted = fit([{**run, "loss": loss_curve.loss_at(theta, run)} for run in runs])
    assert fitted["scatter"] < 0.01
    assert list(fitted["coefficients"].values()) == pytest.approx(theta, rel=0.05)
