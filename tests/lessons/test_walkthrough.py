"""The walkthrough tells the truth: its Python prints what stands below it, its commands run, its figures are drawn."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import re
import shlex
from pathlib import Path

import pytest

from glassformer.lessons import lesson_8_scaled, runner, table

ROOT = Path(__file__).resolve().parents[2]
WALKTHROUGH = ROOT / "docs" / "walkthrough.md"
TEXT = WALKTHROUGH.read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


def python_with_output() -> list[tuple[str, str]]:
    """Every Python block with the text block that follows it."""
    pattern = r"^```python\n(.*?)^```\n\n```text\n(.*?)^```"
    return re.findall(pattern, TEXT, flags=re.MULTILINE | re.DOTALL)


def test_every_python_block_prints_what_stands_below_it(shakespeare, monkeypatch):
    """In order, in one namespace, as a reader would type them."""
    for name in ("BLOCK_SIZE", "N_EMBD", "N_HEAD", "N_LAYER"):  # section 9 makes lesson 8 small
        monkeypatch.setattr(lesson_8_scaled, name, getattr(lesson_8_scaled, name))
    assert len(python_with_output()) == len(blocks("python")) > 9
    namespace: dict = {}
    for code, expected in python_with_output():
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, "walkthrough.md", "exec"), namespace)
        assert printed.getvalue() == expected


def test_every_python_block_runs_on_a_text_of_ones_own(monkeypatch):
    """Other characters, and another number of them: nothing is made for 65."""
    monkeypatch.setattr(runner, "read_text", lambda path: "Где дом? Там стоит новый дом, и в нём 37 окон.\n" * 20)
    for name in ("BLOCK_SIZE", "N_EMBD", "N_HEAD", "N_LAYER"):
        monkeypatch.setattr(lesson_8_scaled, name, getattr(lesson_8_scaled, name))
    namespace: dict = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for code in blocks("python"):
            exec(compile(code, "walkthrough.md", "exec"), namespace)
    shown = printed.getvalue()
    assert f"{len(namespace['characters'])} different" in shown and "logits equal: True" in shown


COMMANDS = [line.partition("  #")[0].strip() for block in blocks("sh") for line in block.splitlines()]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_runs(command, glassformer, play, small_lesson_8, tmp_path, monkeypatch):
    """Cut short: few steps, a small play."""
    monkeypatch.chdir(tmp_path)
    program, *words = shlex.split(command)
    assert program == "glassformer"
    if "--table" in words or (words[0] == "lesson" and "--diff" not in words):
        words += ["--steps", "2", "--data", str(play)]
    result = glassformer(*words)
    assert (result.code, result.err) == (0, "") and result.out.strip()


def test_every_lesson_is_there_in_its_order():
    numbered = re.findall(r"^## (\d+)\. ", TEXT, re.MULTILINE)
    assert numbered == [str(n) for n in range(1, 11)]


def test_every_link_and_figure_is_there():
    targets = re.findall(r"\]\(([^)#]+?)(?:#[\w-]+)?\)", TEXT)
    assert len(targets) > 8
    own = [target for target in targets if not target.startswith("https://")]
    assert [target for target in own if not (WALKTHROUGH.parent / target).exists()] == []


def test_the_table_is_what_the_run_printed():
    """The lines in the text, made once more from the numbers that the same run left in walkthrough/table.json."""
    kept = json.loads((WALKTHROUGH.parent / "walkthrough" / "table.json").read_text())
    shown = next(block for block in blocks("text") if block.startswith("rung"))
    assert shown.splitlines()[0] == table.HEAD.rstrip()
    rungs = {rung.name: rung for rung in table.RUNGS}
    for line, row in zip(shown.splitlines()[1:], kept["rungs"], strict=False):
        difference = None if row["difference"] is None else (row["difference"], row["interval"])
        again = table.Row(
            rungs[row["rung"]], row["steps"], row["parameters"], tuple(row["losses"]), row["seconds"], difference
        )
        assert line == table.line(again).rstrip()
    result = [(row["mean"], row["told"]) for row in kept["rungs"] if re.fullmatch(r"2\.\d+", row["told"])]
    assert len(result) == 6 and all(abs(mean - float(lecture)) <= 0.05 for mean, lecture in result)


def test_the_figures_are_drawn(play, tmp_path):
    spec = importlib.util.spec_from_file_location("walkthrough_pictures", ROOT / "docs" / "walkthrough_pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    folder = tmp_path / "figures"
    pictures.main(folder, play.read_text(), steps=2, window="Citizen ")
    drawn = {path.name for path in folder.iterdir()}
    assert drawn == {path.name for path in (ROOT / "docs" / "walkthrough").glob("*.png")}
    assert all(path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 5000 for path in folder.glob("*.png"))
    weights = pictures.attention_weights(play.read_text(), steps=2, window="Citizen ")
    assert weights.shape == (4, 8, 8) and weights.triu(diagonal=1).count_nonzero() == 0
    raw = pictures.scores_of(64, pictures.torch.Generator().manual_seed(0))
    assert raw.var().item() == pytest.approx(64, rel=0.1)
