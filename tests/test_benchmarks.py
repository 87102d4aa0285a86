"""Every benchmark starts, and says in one line what it lacks."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from patience import PATIENCE

FOLDER = Path(__file__).parents[1] / "benchmarks"
SCRIPTS = sorted(path.name for path in FOLDER.glob("*.py") if not path.name.startswith("_"))
EXTRAS = {"fit_loss_curve.py": "scipy", "sentiment.py": "sklearn", "server.py": "httpx", "llama_worker.py": "llama_cpp"}
STANDARD_LIBRARY_ONLY = {"char_loss.py", "crash.py", "prepare_data.py", "time_to_loss.py"}  # until they run a command


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "llama_worker.py"])
def test_a_benchmark_starts(script, monkeypatch, capsys):
    """All its imports are there, and --help lists its options."""
    if (extra := EXTRAS.get(script)) is not None:
        pytest.importorskip(extra)
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)  # which the script changes
    monkeypatch.setattr(os, "environ", os.environ.copy())
    monkeypatch.setattr(sys, "argv", [script, "--help"])
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(FOLDER / script), run_name="__main__")
    assert end.value.code == 0
    assert f"usage: {script}" in capsys.readouterr().out


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **environment}
    )


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script not in STANDARD_LIBRARY_ONLY])
def test_a_missing_package_is_one_line(script):
    """-S: a Python without any installed package."""
    done = run("-S", str(FOLDER / script))
    assert done.returncode == 1 and not done.stdout
    assert re.fullmatch(r"\S+\.py: \w+ is not installed.*(make demo|pip install).*\n", done.stderr), done.stderr


def test_a_command_that_fails_is_its_own_line(tmp_path):
    (tmp_path / "tinyshakespeare.txt").write_text("not Shakespeare")
    done = run(str(FOLDER / "time_to_loss.py"), GLASSFORMER_DATA=str(tmp_path))
    assert done.returncode == 1 and not done.stdout
    assert re.fullmatch(r"\S+time_to_loss\.py: error: .*tinyshakespeare\.txt: the SHA-256 is .*\n", done.stderr)


def explain(error: BaseException) -> str | None:
    return runpy.run_path(str(FOLDER / "_one_line.py"))["explain"](error)


def test_what_else_is_one_line(monkeypatch):
    from torch._inductor.exc import InvalidCxxCompiler

    from glassformer.errors import ModelFolderError

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    outer = RuntimeError("backend failed")
    outer.__cause__ = InvalidCxxCompiler()
    assert "C++ compiler" in (explain(outer) or "")
    assert explain(ModelFolderError("smollm2: not here; run: glassformer pull smollm2")) == (
        "smollm2: not here; run: glassformer pull smollm2"
    )
    assert explain(subprocess.CalledProcessError(3, ["train", 5])) == "exit code 3 of: train 5"
    assert explain(KeyboardInterrupt()) == "stopped"
    assert explain(ModuleNotFoundError("x", name="sklearn.svm")) == (
        f"sklearn is not installed; run: {sys.executable} -m pip install scikit-learn"
    )
    assert explain(ZeroDivisionError("a bug")) is None
