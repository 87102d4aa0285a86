"""docs/fine-tuning.md: its commands run, in order, on small models in the place of those it names."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from command_line import glassformer
from play import PLAY

from glassformer import recipes
from glassformer.recipes.defaults import fine_tuning_rate
from glassformer.recipes.resume import CHANGEABLE

__all__ = ["glassformer"]

PAGE = (Path(__file__).parent.parent / "docs" / "fine-tuning.md").read_text()
LINES = [line for block in re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S) for line in block.splitlines()]
SMALL = ["model.n_layer=1", "model.n_head=2", "model.n_embd=16", "model.block_size=64", "tokenizer.kind=characters",
         "training.steps=3", "training.compile=off"]  # fmt: skip
ELSEWHERE = ("pull", "serve", "export")  # commands with tests of their own, and a network


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the texts and models that the page names; all of these are small."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GLASSFORMER_CACHE", str(tmp_path / "cache"))
    Path("ft.txt").write_text(PLAY.replace("famish", "starve"))
    Path("other.txt").write_text(PLAY)
    recipes.train(None, SMALL, data="other.txt", out="runs/demo-1")
    shutil.copytree("runs/demo-1/model", "cache/models/smollm2-135m-instruct")
    return tmp_path


def test_every_command_of_the_page_works(folder, glassformer):
    assert len(LINES) > 12
    for line in LINES:
        words = shlex.split(line)[1:]
        if words[0] in ELSEWHERE:
            assert glassformer(words[0], "--help").code == 0
            continue
        if words[0] == "resume" and len(words) == 2:
            (Path(words[1]) / "summary.json").unlink()  # it was stopped
        short = [] if any("steps=" in word for word in words) else ["training.steps=5", "training.sample_every=0"]
        more = {"train": [*short, "training.compile=off", "-q"], "resume": ["-q"], "plan": ["--no-probe"]}
        shown = glassformer(*words, *more.get(words[0], []))
        assert shown.code == 0, (line, shown.err)
        if words[0] == "train":
            assert "training.start_from = " in shown.err and "before the first step" in shown.err


def test_what_the_page_lists_is_so():
    for key in CHANGEABLE:
        assert f"`{key.removeprefix('training.')}`" in PAGE, key
    assert f"training.learning_rate = {fine_tuning_rate(576)}" in PAGE
