"""`glassformer plan` of tasks whose first steps are made, instead of counted."""

from __future__ import annotations

import json

import pytest

from glassformer.errors import UsageError
from glassformer.recipes.plan import plan

DIGITS = ["digits", "model.n_layer=1", "model.n_embd=8", "model.n_head=2", "training.steps=40"]


def test_at_the_command_line(glassformer, refused):
    shown = glassformer("plan", *DIGITS).out
    assert "40 steps on cpu" in shown and "class token" in shown and "measured" in shown
    found = json.loads(glassformer("plan", *DIGITS, "--json").out)
    assert found["recipe"] == "digits" and found["steps"] == 40
    refused("plan", *DIGITS, "--no-probe", code=2, names=("task.kind=induction or next_token", "without --no-probe"))
    refused("plan", *DIGITS, "--devices", "8", code=2, names=("not for encoder", "--devices"))
    with pytest.raises(UsageError, match="time its first steps"):
        plan("digits")
