"""An evaluation that is no number: never the best, never written as NaN, and everything that reads a run copes."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace

import pytest
from rich.console import Console
from tiny_runs import SMALL, Die, Heard

from glassformer import recipes
from glassformer.errors import DivergenceError
from glassformer.training import RunFolder, write_report
from glassformer.training.display import LivePanel, PlainLines
from glassformer.training.run_table import list_runs

TINY = [
    *SMALL, "model.n_layer=1", "training.steps=12", "training.eval_every=4", "training.checkpoint_every=4",
    "training.optimizer=adamw",
]  # fmt: skip


class NotANumber(Heard):
    """Evaluations after the given steps find a NaN, as where a rare token of the held-out text overflows."""

    def __init__(self, *steps: int):
        super().__init__()
        self.steps = steps

    def on_start(self, trainer):
        evaluate = trainer.task.evaluate

        def broken(model, split="validation", **how):
            measured = evaluate(model, split, **how)
            if split != "validation" or trainer.step not in self.steps:
                return measured
            windows = measured.windows
            return replace(windows, sums=windows.sums * math.nan).metrics(1.0)

        trainer.task.evaluate = broken


def strict(path):
    """Every line of a JSONL file, read as JSON and not as Python's larger language."""
    return [json.loads(line, parse_constant=pytest.fail) for line in path.read_text().splitlines()]


def test_a_nan_is_never_the_best_the_log_stays_json_and_the_displays_show_a_dash(play, tmp_path):
    callback, plain, panel = NotANumber(4, 12), PlainLines(io.StringIO()), LivePanel(io.StringIO())
    run = recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[callback, plain, panel])
    assert run.best_step == 8 and math.isfinite(run.loss.loss)
    kept, of_step_8 = (run.path / part / "model.safetensors" for part in ("model", "checkpoints/step-000008/model"))
    assert kept.read_bytes() == of_step_8.read_bytes()
    losses = {line["step"]: line["val_loss"] for line in strict(run.path / "metrics.jsonl") if "val_loss" in line}
    assert losses == {4: None, 8: run.loss.loss, 12: None}
    (event,) = callback.events
    assert event["kind"] == "warning" and event["step"] == 4 and "not a finite number" in event["text"]
    assert list_runs(tmp_path)[0].value == run.loss.loss
    page = write_report(RunFolder(run.path)).read_text()
    assert "NaN" not in page and ">nan<" not in page
    lines = plain.stream.getvalue().splitlines()
    assert "validation – " in next(line for line in lines if line.startswith("step 12/"))
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(panel._panel())
    assert "–" in console.export_text() and [step for step, _ in panel.scores] == [8]


def test_a_run_without_one_good_evaluation_ends_with_an_error_and_no_model(play, tmp_path):
    with pytest.raises(DivergenceError, match=r"run.*no model/.*learning_rate"):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[NotANumber(4, 8, 12)])
    assert not (tmp_path / "run" / "model").exists()
    assert not (tmp_path / "run" / "summary.json").exists()


def test_a_checkpoint_of_an_older_version_that_called_a_nan_the_best(play, tmp_path):
    """It has no best weights; resumed, the run finds some, or says that there are none."""
    with pytest.raises(MemoryError):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[Die(9)])
    path = tmp_path / "run" / "checkpoints" / "step-000008" / "state.json"
    state = json.loads(path.read_text())
    state["best"]["metrics"]["loss"][0] = math.nan
    path.write_text(json.dumps(state))
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    with pytest.raises(DivergenceError, match="no evaluation gave a finite"):
        recipes.resume(tmp_path / "run", callbacks=[NotANumber(12)])
    assert recipes.resume(tmp_path / "other").best_step == 12


def test_an_interval_of_one_window_is_infinite_and_comes_back_from_json(play, tmp_path):
    """A held-out text of one window shows no spread: null in the files, infinite in the program, also resumed."""
    text = tmp_path / "short.txt"
    text.write_text(play.read_text()[:300])

    settings = [*TINY, "data.validation_fraction=0.01", "model.block_size=53"]
    with pytest.raises(MemoryError):
        recipes.train(None, settings, data=str(text), out=tmp_path / "run", callbacks=[Die(9)])
    strict(tmp_path / "run" / "metrics.jsonl")
    state = (tmp_path / "run" / "checkpoints" / "step-000008" / "state.json").read_text()
    assert json.loads(state, parse_constant=pytest.fail)["best"]["metrics"]["loss"][2] is None
    assert recipes.resume(tmp_path / "run").loss.interval == math.inf
