"""The notebook of the docs, run by a real kernel on a small trained model: every view draws itself."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from patience import PATIENCE
from play import PLAY

PAGE = Path(__file__).parents[2] / "docs" / "looking-inside.md"
NOTEBOOK = Path(__file__).parents[2] / "docs" / "looking-inside.ipynb"
SMALL = ("model.n_layer=2", "model.n_head=2", "model.n_embd=24", "model.block_size=64", "training.steps=20")


def test_it_runs_from_the_first_cell_to_the_last(glassformer, tmp_path):
    client = pytest.importorskip("nbclient", reason="needs the package nbclient")
    pytest.importorskip("ipykernel", reason="needs the package ipykernel")
    (tmp_path / "play.txt").write_text(PLAY + "The five boxing wizards jump quickly: to be, or not to be.\n" * 20)
    run = tmp_path / "run"
    assert glassformer("train", "--data", tmp_path / "play.txt", *SMALL, "--out", run).code == 0
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    sources = [cell for cell in notebook.cells if cell.cell_type == "code"]
    sources[0].source = sources[0].source.replace("runs/demo-1", str(run))
    client.NotebookClient(notebook, timeout=int(PATIENCE), resources={"metadata": {"path": str(tmp_path)}}).execute()
    drawn = [out.data for cell in sources for out in cell.outputs if out.output_type == "execute_result"]
    pages = ["".join(data["text/html"]) for data in drawn if "text/html" in data]
    assert len(pages) >= 18
    for page in pages:
        assert "data-value" in page and "http" not in page.replace("http://www.w3.org/2000/svg", "")
    assert any("image/png" in data for data in drawn)  # the plot


def test_what_is_committed_was_run_and_holds_no_path():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs for cell in cells)
    assert not [cell for cell in cells for out in cell.outputs if out.output_type == "error"]
    assert "/work/" not in NOTEBOOK.read_text() and "/home/" not in NOTEBOOK.read_text()


def test_the_python_of_the_page_about_looking_inside_runs(glassformer, finished, capsys):
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), flags=re.S):
        text = block.replace("runs/demo-1", str(finished)).replace("To be, or not to be", "Citizen")
        exec(text.replace("To be, or not to ", "Citizen").replace("blocks.1", "blocks.0").replace("H=2", "H=1"), names)
    assert names["seen"]["blocks.0.attention.pattern"].shape == (1, 2, 7, 7)
    assert "Citizen" in capsys.readouterr().out
