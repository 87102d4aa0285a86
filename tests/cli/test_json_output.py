"""What `--json` prints is JSON, which has no NaN and no infinity."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import glassformer.cli
from glassformer.cli.output import print_json
from glassformer.evaluation import LossEstimate


def test_what_is_no_number_is_null(capsys):
    print_json({"loss": math.nan, "text": "é", "ends": [-math.inf, 1.5]})
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail) == {
        "loss": None,
        "text": "é",
        "ends": [None, 1.5],
    }


def test_a_model_that_is_broken_is_measured_in_json(glassformer, finished, monkeypatch):
    monkeypatch.setattr(
        "glassformer.evaluation.estimate.Metrics.loss_estimate",
        lambda self: LossEstimate(math.nan, 3, math.inf, math.nan),
    )
    shown = json.loads(glassformer("evaluate", finished, "--json").out, parse_constant=pytest.fail)
    assert (shown["loss"], shown["interval"], shown["perplexity"], shown["n"]) == (None, None, None, 3)


def test_no_command_writes_json_in_another_way():
    folder = Path(glassformer.cli.__file__).parent
    assert [file.name for file in folder.rglob("*.py") if "json.dumps" in file.read_text(encoding="utf-8")] == []
