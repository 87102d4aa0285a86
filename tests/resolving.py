"""Recipes resolved as far as a test needs it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from glassformer.recipes import read_recipe
from glassformer.recipes.machine import Machine
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.shape import model_config

CPU = Machine(device="cpu", threads=1, precision="fp32", compile=False)
TINY = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=11", "training.batch_size=3"]


def resolved(recipe: str | None, *overrides: str, vocab_size: int = 65) -> tuple[Any, ResolvedTraining]:
    """The configuration and the numbers of a recipe for a text."""
    r = read_recipe(recipe, overrides)
    config = model_config(r, vocab_size=vocab_size)
    auto = 1 if r.training.batch_size == "auto" else None
    return config, ResolvedTraining.complete(r.training, config.block_size, batch_size=auto)


def stopped_at(run: Path, step: int, name: str = "stopped") -> Path:
    """A copy of a run that was killed right after the checkpoint of this step."""
    copy = shutil.copytree(run, run.parent / name)
    (copy / "summary.json").unlink()
    for folder in copy.glob("checkpoints/step-*"):
        if int(folder.name[5:]) > step:
            shutil.rmtree(folder)
    return copy
