"""The command line as a test calls it: in this process, with what it printed and the exit code; and small runs to use.

`from command_line import *` in a folder's conftest.py gives that folder the fixtures.
"""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from patience import PATIENCE
from play import PLAY

__all__ = ["finished", "glassformer", "half", "refused", "small_runs"]

TINY = [
    "model.family=classic",
    "model.n_layer=1",
    "model.n_head=2",
    "model.n_embd=16",
    "model.block_size=11",
    "tokenizer.kind=characters",
    "training.steps=13",
    "training.batch_size=3",
    "training.dropout=0.2",
    "training.optimizer=adamw",
    "training.schedule=linear",
    "training.final_lr_fraction=0.1",
    "training.eval_every=5",
    "training.checkpoint_every=4",
    "training.sample_every=5",
    "training.sample_tokens=7",
    "training.precision=fp32",
]
RUN = "import sys; from glassformer.cli import main; sys.argv[0] = 'glassformer'; main()"  # as the console script does


class Result(NamedTuple):
    code: int
    out: str
    err: str


def files(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: contents by relative path, None for a folder. Two equal answers: nothing changed."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def same_end(a: Path, b: Path) -> bool:
    """Bit for bit: model/, the last checkpoint's weights and optimizer, the samples, and the log but for the times."""
    last = "checkpoints/step-000013"
    logs = []
    for run in (a, b):
        lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
        logs.append([{k: v for k, v in line.items() if "second" not in k and k != "mfu"} for line in lines])
    compared = [f"{last}/{name}" for name in ("model/model.safetensors", "optimizer.safetensors")]
    compared += ["model/model.safetensors", "samples.jsonl"]
    return logs[0] == logs[1] and all((a / name).read_bytes() == (b / name).read_bytes() for name in compared)


def own_process(*args: Any, cwd: Path, **more: Any) -> subprocess.Popen[str]:
    """The command in a process of its own, for signals, pipes and limits."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *map(str, args)],
        cwd=cwd,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        **more,
    )


def wait_for(what: Callable[[], object], process: subprocess.Popen[str], seconds: float = PATIENCE) -> None:
    """Until `what()` is true; fails when the process ends before."""
    until = time.monotonic() + seconds
    while not what():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until, "the time is over"
        time.sleep(0.005)


@pytest.fixture
def glassformer(capsys, monkeypatch, tmp_path):
    """`glassformer("train", ...) -> Result`, in a folder of its own, 80 columns wide."""
    from glassformer.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")

    def call(*args: Any, stdin: bytes = b"") -> Result:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["glassformer", *map(str, args)])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code: Any = 0
        with warnings.catch_warnings():  # `main` prints them its own way; put back afterwards
            warnings.simplefilter("default")
            try:
                main()
            except SystemExit as end:
                code = end.code
            finally:
                signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture
def refused(glassformer, tmp_path):
    """`refused(*args, code=2, line="...")`: exactly that line, that exit code, and every file as it was.

    `names=("value", "next step")` in place of `line`: one line that has each of these, whatever its other words.
    """

    def call(*args: Any, code: int, line: str | None = None, names: Sequence[str] = (), stdin: bytes = b"") -> None:
        assert (line is None) == bool(names), "give either the line or what it names"
        before = files(tmp_path)
        result = glassformer(*args, stdin=stdin)
        assert result.err.startswith("error: ") and result.err.count("\n") == 1 and result.err.endswith("\n")
        assert line is None or result.err == f"error: {line}\n"
        assert not [name for name in names if name not in result.err], result.err
        assert (result.out, result.code) == ("", code)
        assert files(tmp_path) == before

    return call


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory) -> Path:
    """A folder with `play.txt` and two runs on it: `finished`, and `half`, which was stopped after 7 of 13 steps."""
    from glassformer import recipes
    from glassformer.training import Callback, Interrupted

    class StopAfterSeven(Callback):
        def on_step(self, record):
            if record["step"] == 7:
                signal.raise_signal(signal.SIGINT)

    folder = tmp_path_factory.mktemp("small-runs")
    (folder / "play.txt").write_text(PLAY, encoding="utf-8")
    recipes.train(None, TINY, data=str(folder / "play.txt"), out=folder / "finished")
    with pytest.raises(Interrupted):
        recipes.train(None, TINY, data=str(folder / "play.txt"), out=folder / "half", callbacks=[StopAfterSeven()])
    return folder


@pytest.fixture
def finished(small_runs, tmp_path) -> Path:
    """A finished run at `runs/finished`, to use or to damage."""
    return Path(shutil.copytree(small_runs / "finished", tmp_path / "runs" / "finished"))


@pytest.fixture
def half(small_runs, tmp_path) -> Path:
    """A run that was stopped after 7 of 13 steps, at `runs/half`; it has checkpoints of steps 4 and 7."""
    return Path(shutil.copytree(small_runs / "half", tmp_path / "runs" / "half"))
