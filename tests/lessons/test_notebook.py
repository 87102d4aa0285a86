"""The notebook is made of the lessons' own lines, and runs from its first cell to its last."""

from __future__ import annotations

import sys

import nbformat
import pytest
from play import PLAY
from small_lesson import PAIRS, SMALL

from glassformer.lessons import runner
from glassformer.lessons.notebook import MESSAGES, pieces


def code_cells(path) -> list[str]:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture
def notebook(glassformer, tmp_path):
    path = tmp_path / "lessons.ipynb"
    assert glassformer("lessons", "--notebook", path).code == 0
    return path


def test_it_runs(notebook, monkeypatch, capsys, small_lesson_8):
    """Cell by cell in one namespace as a kernel does, on a small play, two steps a lesson."""
    monkeypatch.setattr(runner, "read_text", lambda path: PLAY)
    monkeypatch.setattr(runner, "read_pairs", lambda path: PAIRS)
    namespace: dict = {}
    for n, source in enumerate(code_cells(notebook)):
        exec(compile(source, f"cell {n}", "exec"), namespace)
        if "N_LAYER, DROPOUT = " in source:
            namespace.update(SMALL)
        if "STEPS, LEARNING_RATE = " in source:
            namespace["STEPS"] = 2
    printed = capsys.readouterr().out
    assert printed.count("after 2 steps") == 10  # nine models, and lesson 6 without residuals
    assert "the two samples are the same" in printed
    assert "who knows, round by round" in printed


def test_it_holds_every_line_of_the_lessons(notebook):
    """But for docstrings (text cells) and the lines that make a file a program."""
    cells = "\n".join(code_cells(notebook)).splitlines()
    for path in [*runner.LESSONS.values(), MESSAGES]:
        code = runner.code_of(path).split('if __name__ == "__main__"')[0]
        assert [line for line in code.splitlines() if line.strip() and line not in cells] == []
        assert "\n".join(pieces(runner.code_of(path))).replace("\n", "") == code.replace("\n", "")


def test_the_same_lessons_give_the_same_file(notebook, glassformer, tmp_path):
    glassformer("lessons", "--notebook", tmp_path / "again.ipynb")
    assert (tmp_path / "again.ipynb").read_bytes() == notebook.read_bytes()


def test_without_nbformat_the_line_names_what_to_install(glassformer, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "nbformat", None)
    result = glassformer("lessons", "--notebook", tmp_path / "x.ipynb")
    assert result.code == 1 and "pip install 'glassformer[notebook]'" in result.err
    assert not (tmp_path / "x.ipynb").exists()
