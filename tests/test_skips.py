"""What is skipped is counted by reason, whichever process skipped it; what depends on a skipped command says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from skips import Commands

SUITE = {
    "test_some.py": """
import pytest
@pytest.mark.parametrize("i", range(3))
def test_one(i): pytest.skip("needs a printer")
@pytest.mark.skipif(True, reason="needs a scanner")
def test_two(): pass
def test_three(): pytest.importorskip("no_such_package.part")
def test_four(): pass
""",
    "test_none.py": "import pytest\npytest.importorskip('no_such_package')\ndef test(): pass",
}


@pytest.mark.parametrize("processes", ["0", "2"])
def test_reasons_are_counted(processes, tmp_path):
    for name, text in SUITE.items():
        (tmp_path / name).write_text(text)
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "skips", "-p", "no:cacheprovider", "-n", processes],
        cwd=tmp_path, env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)}, capture_output=True, text=True,
    )  # fmt: skip
    shown = [line for line in done.stdout.splitlines() if line.startswith("skipped ")]
    assert shown == [
        "skipped 3 tests: needs a printer",
        "skipped 1 test and 1 file: needs the package no_such_package",
        "skipped 1 test: needs a scanner",
    ], done.stdout


LINES = ["train --out runs/a", "train --out runs/ab", "glassformer pull small", "report runs/a", "chat small", "list"]


def skipped(commands: Commands, text: str) -> str:
    try:
        commands.needs(text)
    except pytest.skip.Exception as skip:
        return str(skip)
    return ""


def test_a_command_waits_for_its_maker():
    commands = Commands(LINES)
    for line in ("train --out runs/a", "list", "look at runs/abc", "prune my-runs/a", "a small-model"):
        assert skipped(commands, line) == ""
    assert "needs runs/a, which `train --out runs/a` makes" in skipped(commands, "report runs/a")
    assert "glassformer pull small" in skipped(commands, "chat small")
    assert "runs/ab" in skipped(commands, 'load("runs/ab/model")')
    commands.succeeded("train --out runs/a")
    assert skipped(commands, "report runs/a") == ""
    assert skipped(commands, "chat small") != ""
