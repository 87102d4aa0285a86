"""The demo, cut short: what it prints at the end."""

from __future__ import annotations

import re

SHORT = ["training.steps=5", "training.eval_every=0", "training.sample_every=0"]


def test_the_demo_prints_loss_sample_folder_and_three_things_to_try(glassformer):
    done = glassformer("demo", *SHORT)
    assert done.code == 0, done.err
    sample, rest = done.out.split("validation loss", 1)
    assert len(sample.strip("\n")) >= 450
    assert re.match(r" \d\.\d{4} \(uniform guessing: 4\.1744\) after \d+ s of training", rest)
    assert "runs/demo-1" in rest
    assert len([line for line in rest.splitlines() if line.startswith("  glassformer ")]) == 3
