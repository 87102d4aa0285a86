"""The model of every use comes back from its folder with all that belongs to it, however often it is saved again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from every_use import USES

import glassformer as gf
from glassformer.figures.json import plain
from glassformer.tasks import TASKS

OF_HISTORY = {"skip_gram"}  # vectors of words: test_every_kind.py
NEEDS = {"molecules": "rdkit", "a number for a molecule": "rdkit", "speech to text": "soundfile",
         "Whisper": "transformers"}  # fmt: skip


def test_every_task_is_among_them():
    assert {task for use in USES.values() for task in use.tasks} == TASKS.keys() - OF_HISTORY


def contents(folder: Path) -> dict[str, Any]:
    return {
        str(file.relative_to(folder)): json.loads(file.read_text()) if file.suffix == ".json" else file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


@pytest.mark.parametrize("name", USES)
def test_loaded_and_saved_again_it_is_the_same(name: str, tmp_path: Path):
    """The same answers from the same files."""
    pytest.importorskip(NEEDS.get(name, "numpy"), reason=f"needs the package {NEEDS.get(name)}")
    use = USES[name]
    use.save(tmp_path / "one")
    first = gf.load(tmp_path / "one")
    gf.save(tmp_path / "two", first)
    second = gf.load(tmp_path / "two")
    gf.save(tmp_path / "three", second)
    assert contents(tmp_path / "two") == contents(tmp_path / "three")
    if name != "Whisper":  # another program wrote the first
        assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert second.labels == first.labels and second.processor == first.processor
    with torch.inference_mode():
        assert plain(use.predict(second, tmp_path / "b")) == plain(use.predict(first, tmp_path / "a"))
