"""`glassformer compare-history`, at a tiny size."""

from __future__ import annotations

import json

import pytest
from small_history import COPYING, FEW, LANGUAGE


@pytest.fixture
def tiny(monkeypatch):
    """`--quick`, quicker still."""
    settings = {
        "loss": {"steps": 4, "batch_size": 3, "block_size": 7, "longest_n_gram": 2, "shapes": LANGUAGE},
        "bottleneck": {**FEW, "steps": 4, "shapes": COPYING},
    }
    monkeypatch.setattr("glassformer.history.comparison.QUICK", settings)


def test_it_prints_tables_and_where_the_page_is(glassformer, play, tiny, tmp_path):
    result = glassformer("compare-history", "--quick", "--data", play, "--out", "results", "--scale", "0.5")
    assert result.code == 0
    assert result.out.endswith("pictures and tables: results/index.html\n")
    shown = json.loads((tmp_path / "results" / "results.json").read_text())
    for curve in shown["loss"]["curves"]:
        assert f"{curve['points'][-1]['loss']:.3f}" in result.out
    for name in ("2-grams", "LSTM (1997)", "Transformer (2017)", "LSTM through one vector"):
        assert name in result.out
    assert all(len(line) <= 80 for line in result.out.splitlines())
    assert "LSTM (1997): step 2 of 2, " in result.err


def test_json_is_what_is_written(glassformer, play, tiny, tmp_path):
    result = glassformer("compare-history", "--quick", "--data", play, "--json")
    assert json.loads(result.out) == json.loads((tmp_path / "compare-history" / "results.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (["--data", "no.txt"], 1, "no.txt: no such file, folder or corpus; did you mean short.txt?"),
        (["--scale", "0"], 2, "scale=0.0 is out of range; use more than 0 and at most 1000, for example 0.5"),
        (["--data", "short.txt"], 2, "block_size=64 is longer than the text: the train split holds 10 tokens, and a "
         "window needs block_size + 1; try block_size=5 or give more text"),
        (["--data", "short.txt", "--device", "tpu"], 2, "device='tpu' is unknown; use auto, cpu, cuda or cuda:N"),
        (["--out", "short.txt"], 2, "short.txt is a file; give the name of a folder"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_before_minutes_are_spent(refused, tmp_path, arguments, code: int, line: str):
    (tmp_path / "short.txt").write_text("To be, or not")
    refused("compare-history", *arguments, code=code, line=line)
