"""Recipes at their full size: nanoGPT's CPU recipe (two minutes on two cores), and three steps of GPT-2 124M (one)."""

from __future__ import annotations

import math

import pytest

from glassformer import recipes


@pytest.mark.slow
def test_shakespeare_char_cpu_reaches_nanogpts_loss(shakespeare, tmp_path):
    run = recipes.train("shakespeare-char-cpu", out=tmp_path / "run")
    assert run.parameters == 804_096
    assert run.loss.n == 111_539  # every target of the validation split
    assert run.loss.loss == pytest.approx(1.898, abs=0.03)


@pytest.mark.slow
def test_gpt2_124m_runs_for_three_steps_on_any_text(shakespeare, tmp_path):
    text = tmp_path / "any.txt"
    text.write_text(shakespeare.read_text(encoding="utf-8")[:60_000], encoding="utf-8")
    short = ["data.validation_fraction=0.1", "training.steps=3", "training.batch_size=1", "training.eval_batches=1"]
    run = recipes.train("gpt2-124m", short, data=str(text), out=tmp_path / "run")
    assert run.parameters == 124_337_664  # GPT-2's 124,439,808 without the biases
    assert run.loss.loss < math.log(50_257) + 0.5  # it starts near a blind guess
