"""`glassformer runs` and `report`: the list shows what the files contain; differences, paired and unpaired."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from glassformer.evaluation import WindowLosses
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_table import list_runs


def summary(run, **changes):
    shown = {**json.loads((run / "summary.json").read_text()), **changes}
    (run / "summary.json").write_text(json.dumps(shown))
    return shown


def change_recipe(run, old: str, new: str):
    text = (run / "recipe.toml").read_text()
    assert text.count(old) >= 1
    (run / "recipe.toml").write_text(text.replace(old, new))


@pytest.fixture
def other(finished):
    """A second finished run, at `runs/other`: another seed, another loss."""
    run = shutil.copytree(finished, finished.parent / "other")
    change_recipe(run, "seed = 1337", "seed = 7")
    summary(run, val_loss=summary(finished)["val_loss"] + 0.005, seconds=1e-3)
    return run


def keep_windows(run, sums):
    """Window losses beside a run, and the summary that belongs to them."""
    windows = WindowLosses(torch.tensor(sums, dtype=torch.float64), torch.full((len(sums),), 10), "the same targets")
    windows.save(RunFolder(run).windows)
    loss = windows.estimate()
    summary(run, val_loss=loss.loss, interval=loss.interval, n=loss.n)


def test_the_list_is_what_the_files_say(glassformer, finished, half):
    result = glassformer("runs")
    assert (result.code, result.err) == (0, "")
    header, first, second, hint = result.out.splitlines()
    columns = "run recipe parameters steps tokens time training loss validation loss bits a byte state"
    assert header.split() == columns.split()
    shown = summary(finished)
    assert first.split()[:7] == ["finished", "play", f"{shown['parameters']:,}", "13", "of", "13", f"{13 * 33:,}"]
    assert f"{shown['val_loss']:.4f} ± {shown['interval']:.4f}" in first
    assert f"{shown['val_bits_per_byte']:.4f}" in first
    assert first.endswith("  finished") and second.endswith("  stopped at step 7") and "  7 of 13  " in second
    assert "half: glassformer resume runs/half" in hint


def test_json_has_the_same_runs_in_full(glassformer, finished, half):
    rows = json.loads(glassformer("runs", "--json").out)
    assert [row["name"] for row in rows] == ["finished", "half"]
    shown = summary(finished)
    for key in ("parameters", "steps", "tokens", "seconds", "val_loss", "interval", "val_bits_per_byte", "best_step"):
        assert rows[0][key] == shown[key]
    evaluated = [json.loads(line) for line in (half / "metrics.jsonl").read_text().splitlines()]
    best = next(record for record in evaluated if "val_loss" in record)
    assert (rows[1]["state"], rows[1]["val_loss"], rows[1]["best_step"]) == ("stopped", best["val_loss"], 5)
    assert rows[1]["resume"] == "glassformer resume runs/half" and rows[0]["resume"] is None


def test_sorting(glassformer, finished, other, half):
    def names(*args):
        return [row["name"] for row in json.loads(glassformer("runs", *args, "--json").out)]

    (half / "metrics.jsonl").write_text("")  # without a loss and a time it comes last
    assert names("--sort", "name") == ["finished", "half", "other"]
    assert names("--sort", "loss") == ["finished", "other", "half"]
    assert names("runs", "--sort", "time") == ["other", "finished", "half"]


def test_the_state_of_a_diverged_run(glassformer, half):
    (half / "events.jsonl").write_text('{"step": 7, "seconds": 1, "kind": "diverged", "text": "loss nan"}\n')
    assert "  diverged after step 7\n" in glassformer("runs").out


def test_the_folder_may_be_a_run_or_hold_runs_deeper(finished, half):
    assert [row.name for row in list_runs(finished)] == ["finished"]
    assert [row.name for row in list_runs(finished.parent.parent)] == ["finished", "half"]


@pytest.mark.parametrize(
    ("words", "code", "names"),
    [
        (("runs", "nowhere"), 1, ("nowhere", "glassformer train")),
        (("runs", "empty"), 1, ("empty", "glassformer train")),
        (("runs", "--sort", "lost"), 2, ("'lost'", "did you mean loss?")),
        (("runs", "runs/finished", "runs/finishd"), 1, ("runs/finishd", "did you mean runs/finished?")),
        (("report", "nowhere"), 1, ("nowhere", "no recipe.toml")),
    ],
)
def test_mistakes_are_one_line(refused, finished, tmp_path, words, code, names):
    (tmp_path / "empty").mkdir()
    refused(*words, code=code, names=names)


def test_a_comparison_shows_what_differs(glassformer, finished, other):
    result = glassformer("runs", "runs/finished", "runs/other")
    assert (result.code, result.err) == (0, "")
    lines = result.out.splitlines()
    assert lines[1].startswith("finished") and lines[1].endswith("best")
    assert "0.0050 ± " in lines[2] and lines[2].endswith("not significant (unpaired)")
    table = [line.split() for line in lines if line.startswith(("setting", "training.", "model."))]
    assert table == [["setting", "finished", "other"], ["training.seed", "1337", "7"]]
    assert "Unpaired" in result.out and "another seed" in result.out


def test_windows_make_it_paired_and_sharper(glassformer, finished, other):
    hard = [20.0, 35.0, 28.0, 31.0, 22.0, 40.0, 25.0, 30.0]
    keep_windows(finished, hard)
    keep_windows(other, [h + 1 + 0.1 * (i % 2) for i, h in enumerate(hard)])
    shown = json.loads(glassformer("runs", "runs/finished", "runs/other", "--json").out)
    difference = shown["runs"][1]["difference"]
    assert shown["best"] == "runs/finished" and shown["runs"][0]["difference"] is None
    assert difference["method"] == "paired" and difference["n"] == 8 and difference["significant"] is True
    assert difference["difference"] == pytest.approx(0.105)
    assert "significant (paired, 8 passages)" in glassformer("runs", "runs/other", "runs/finished").out
    summary(finished, val_loss=2.7)  # trained further: the windows belong to an older loss
    shown = json.loads(glassformer("runs", "runs/finished", "runs/other", "--json").out)
    assert shown["runs"][1]["difference"]["method"] == "unpaired"


def test_more_runs_need_wider_intervals(glassformer, finished, other):
    """Of three runs any may have been the best: three comparisons, so 1 - 0.05 / 3 each: 2.394 deviations, not 1.96."""
    third = shutil.copytree(other, other.parent / "third")
    two = json.loads(glassformer("runs", finished, other, "--json").out)["runs"][1]["difference"]["interval"]
    three = json.loads(glassformer("runs", finished, other, third, "--json").out)["runs"][1]["difference"]["interval"]
    assert three / two == pytest.approx(2.394 / 1.96, rel=1e-3)


def test_other_tokenizers_are_compared_in_bits_a_byte(glassformer, finished, other):
    change_recipe(other, 'kind = "characters"', 'kind = "bpe"')
    summary(other, val_loss=1.0, val_bits_per_byte=summary(finished)["val_bits_per_byte"] + 1)
    shown = json.loads(glassformer("runs", finished, other, "--json").out)
    assert shown["best"] == str(finished)
    difference = shown["runs"][1]["difference"]
    assert difference["unit"] == "bits a byte" and difference["difference"] == pytest.approx(1.0)


def test_runs_on_other_texts_come_with_a_warning(glassformer, finished, other):
    assert "not measured on the same text" not in glassformer("runs", finished, other).out
    change_recipe(other, "validation_fraction = 0.1", "validation_fraction = 0.2")
    assert "not measured on the same text" in glassformer("runs", finished, other).out


def test_a_run_without_a_loss_has_a_row(glassformer, finished, half):
    (half / "metrics.jsonl").write_text("")
    result = glassformer("runs", finished, half)
    assert result.code == 0 and "no loss yet" in result.out and "± is the 95 %" not in result.out


def test_report_writes_the_page_and_prints_where(glassformer, finished, half):
    for run, loss in ((finished, summary(finished)["val_loss"]), (half, None)):
        (run / "report.html").unlink(missing_ok=True)
        result = glassformer("report", f"runs/{run.name}")
        assert (result.code, result.out, result.err) == (0, f"runs/{run.name}/report.html\n", "")
        page = (run / "report.html").read_text()
        assert loss is None or f'data-key="val_loss">{loss:.4f} ' in page
        assert f"<h1>{run.name}</h1>" in page


def test_runs_are_paired_if_their_targets_are_equal_whatever_the_text_is_called(glassformer, finished, other):
    keep_windows(finished, [10.0, 12.0, 11.0])
    keep_windows(other, [11.0, 12.5, 11.0])
    change_recipe(other, "play.txt", "copy-of-it.txt")
    shown = glassformer("runs", finished, other).out
    assert "paired, 3 passages" in shown and "not measured on the same text" not in shown
    windows = WindowLosses.load(RunFolder(other).windows)
    WindowLosses(windows.sums, windows.counts, "other targets").save(RunFolder(other).windows)
    change_recipe(other, "copy-of-it.txt", "play.txt")
    shown = glassformer("runs", finished, other).out
    assert "unpaired" in shown and "not measured on the same text" in shown
