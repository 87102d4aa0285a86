"""Plans of tasks whose cost is not counted but rehearsed: that the steps are real, and that nothing is left behind."""

from __future__ import annotations

import json

import pytest
import torch

from glassformer.recipes import train
from glassformer.recipes.rehearsal import rehearse

SMALL = ["model.n_layer=1", "model.n_embd=8", "model.n_head=2", "training.steps=40", "training.batch_size=4"]
DIGITS = ["digits", *SMALL, "training.eval_every=20"]
DIFFUSION = [
    "shakespeare-diffusion",
    *SMALL,
    "model.n_hidden=16",
    "model.block_size=8",
    "training.eval_every=40",
    "training.eval_batches=1",
]


@pytest.mark.parametrize("words", [DIGITS, DIFFUSION], ids=lambda words: words[0])
def test_real_steps_are_timed_and_nothing_is_left(words: list[str], tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines: list[str] = []
    before = torch.get_rng_state()
    found = rehearse(words[0], words[1:], seconds=0.1, log=lines.append)
    assert torch.equal(torch.get_rng_state(), before) and not list(tmp_path.iterdir())
    assert found.steps == 40 and found.rows_per_step == 4 and found.steps_timed >= 1
    assert found.targets_per_step == 4 * (1 if words is DIGITS else 8)
    assert sum(found.parameters_by_part.values()) == found.parameters
    assert found.seconds == sum(found.seconds_by_part.values()) and found.seconds_by_part["steps"] > 0
    assert found.seconds_by_part["steps"] == pytest.approx(40 * found.seconds_per_step)
    assert 0 < found.memory_before_bytes <= found.peak_memory_bytes
    assert [line.split()[1] for line in lines] == ["some", "one"]
    json.dumps(found.to_dict())


def test_the_parameters_are_those_of_the_run(tmp_path):
    run = train("digits", [*DIGITS[1:], "training.steps=2"], out=tmp_path / "run")
    assert run.parameters == rehearse("digits", DIGITS[1:], seconds=0.0).parameters


def test_every_evaluation_counts():
    often = rehearse("digits", [*DIGITS[1:], "training.eval_every=1"], seconds=0.0).seconds_by_part["evaluations"]
    never = rehearse("digits", [*DIGITS[1:], "training.eval_every=0"], seconds=0.0).seconds_by_part["evaluations"]
    assert often > 0 and never == 0.0
