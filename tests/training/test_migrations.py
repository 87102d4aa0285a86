"""A run folder of an earlier version continues as that version would have gone on.

tests/golden/run-format-1 was written by glassformer 0.1.0 before checkpoints had a second format: 8 of 13 steps, with
dropout and accumulation. `expected-losses.json` are the losses of the same run, by the same version, not stopped.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from play import PLAY

from glassformer import recipes
from glassformer.errors import RunError, UsageError
from glassformer.recipes import read_recipe
from glassformer.training import RunFolder
from glassformer.training.migrations import FORMAT, migrate_recipe, migrate_state

GOLDEN = Path(__file__).parents[1] / "golden" / "run-format-1"


def test_an_old_run_continues_as_if_nothing_had_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("play.txt").write_text(PLAY, encoding="utf-8")
    shutil.copytree(GOLDEN, "run")
    shown: list[str] = []
    recipes.resume("run", log=shown.append)
    assert "going on after step 8 of 13" in shown
    lines = RunFolder("run").read_metrics()
    expected = json.loads((GOLDEN / "expected-losses.json").read_text())
    assert [line["loss"] for line in lines] == pytest.approx(expected, rel=1e-6)  # another processor rounds otherwise
    state = json.loads(Path("run/checkpoints/step-000013/state.json").read_text())
    assert state["format"] == FORMAT and state["batches"]["order"] == "random"


def test_a_newer_format_is_refused_with_the_next_step():
    for migrate in (migrate_state, migrate_recipe):
        with pytest.raises(RunError, match=r"^here was written by a newer glassformer \(format 99, this one reads up"):
            migrate({"format": 99}, "here")


def test_every_step_between_formats_exists():
    """A folder of any old format reaches today's."""
    from glassformer.training import migrations

    for table in (migrations.STATE, migrations.RECIPE):
        assert sorted(table) == list(range(1, FORMAT))


def test_the_monitor_keeps_its_counts_under_its_new_name():
    doctor = {"mean": 2.0, "treatments": 3, "told": ["overfitting"]}
    new = migrate_state({"format": 2, "doctor": doctor}, "")
    assert new == {"format": FORMAT, "monitor": {"mean": 2.0, "recoveries": 3, "given": ["overfitting"]}}


def test_the_objective_of_an_old_recipe_is_its_task(tmp_path):
    """In a run folder, in a file and on the command line; under both names it is refused."""
    assert migrate_recipe({"format": 2, "objective": {"kind": "spans"}}, "")["task"] == {"kind": "spans"}
    path = tmp_path / "old.toml"
    path.write_text('[objective]\nkind = "target_sentence"\nlabel_smoothing = 0.25\n')
    for read in (
        read_recipe(str(path)),
        read_recipe(None, ["objective.kind=target_sentence", "objective.label_smoothing=0.25"]),
    ):
        assert read.task.kind == "translate" and read.task.settings == {"label_smoothing": 0.25}
    path.write_text('[objective]\nkind = "spans"\n[task]\nkind = "spans"\n')
    with pytest.raises(UsageError, match=r"old\.toml.*\[objective\].*keep \[task\]"):
        read_recipe(str(path))


def test_what_a_recipe_sets_itself_is_kept():
    assert migrate_recipe({"data": {"order": "epochs"}}, "")["data"]["order"] == "epochs"
    assert migrate_recipe({"data": {}}, "")["data"]["order"] == "random"
    old = {"batches": {"seed": 1, "step": 2, "shuffle": False}, "random": {"torch": "00"}}
    new = migrate_state(old, "")
    assert new["monitor"] == {} and "doctor" not in new
    assert new["batches"] == {"seed": 1, "step": 2, "order": "consecutive"} and new["random"] == [{"torch": "00"}]
