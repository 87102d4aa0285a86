"""The command under `torchrun`: who speaks, who writes, and what is left when a process is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import PATIENCE
from play import PLAY

from glassformer.training import RunFolder

TINY = [
    "model.n_layer=2", "model.n_head=2", "model.n_embd=16", "model.block_size=11", "tokenizer.kind=characters",
    "training.batch_size=8", "training.eval_every=60", "training.checkpoint_every=20", "training.sample_every=60",
    "training.sample_tokens=7", "training.precision=fp32", "training.optimizer=adamw",
]  # fmt: skip


def torchrun(n: int, *words: str, cwd: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(n)]
    return subprocess.Popen(
        [*command, *words], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def own_lines(err: str) -> list[str]:
    """The lines of glassformer, without torchrun's own log, which may come first, and its table, which comes last."""
    table = err.find('Traceback (most recent call last):\n  File "<frozen')
    lines = (line for line in (err if table < 0 else err[:table]).splitlines() if line)
    return [line for line in lines if not line.startswith(("W1", "E1", "step ", "[W", "---")) and "torch/" not in line]


def process_of(rank: int, folder: Path) -> int:
    """The process that works in `folder` as this rank."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes().split(b"\0")
            if f"RANK={rank}".encode() in environment and (entry / "cwd").resolve() == folder.resolve():
                return int(entry.name)
        except OSError:
            continue
    raise AssertionError(f"no process of rank {rank}")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What one process makes of it, undisturbed."""
    from glassformer import recipes

    folder = tmp_path_factory.mktemp("whole")
    (folder / "play.txt").write_text(PLAY)
    return recipes.train(None, [*TINY, "training.steps=100"], data=str(folder / "play.txt"), out=folder / "run").path


@pytest.mark.parametrize("sharding", ["none", "full"])
def test_a_killed_rank_and_a_resume_with_another_number_of_ranks(tmp_path, whole, sharding):
    (tmp_path / "play.txt").write_text(PLAY)
    run = tmp_path / "run"
    words = ["train", *TINY, "training.steps=100", f"training.sharding={sharding}", "--data", "play.txt", "-q"]
    process = torchrun(2, "-m", "glassformer", *words, "--out", "run", cwd=tmp_path)
    deadline = time.monotonic() + PATIENCE
    while not (run / "checkpoints" / "step-000040").exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[1]
        time.sleep(0.02)
    os.kill(process_of(1, tmp_path), signal.SIGKILL)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    kept = sorted(path.name for path in (run / "checkpoints").glob("step-*"))[-1]
    next_step = f"{kept} is kept, continue with: torchrun --nproc-per-node 2 -m glassformer resume run"
    assert f"error: another process of this run has ended; {next_step}" in own_lines(err)
    process = torchrun(4 if sharding == "full" else 1, "-m", "glassformer", "resume", "run", "-q", cwd=tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.count("validation loss") == 1  # one process speaks
    assert any(line.startswith("2 processes before, ") for line in own_lines(err))
    expected, lines = (RunFolder(folder).read_metrics() for folder in (whole, run))
    assert [line["step"] for line in lines] == list(range(1, 101))
    for theirs, ours in zip(expected, lines, strict=True):
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-4)
        assert ours["tokens"] == theirs["tokens"]
    assert lines[-1]["val_loss"] == pytest.approx(expected[-1]["val_loss"], rel=1e-4)


def test_a_mistake_is_printed_once(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    process = torchrun(2, "-m", "glassformer", "train", *TINY, "training.batch_size=7", "--data", "play.txt", "-q",
                       cwd=tmp_path)  # fmt: skip
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0 and out == ""
    assert [line for line in own_lines(err) if "error" in line] == [
        "error: training.batch_size=7 cannot be divided among 2 processes; try training.batch_size=8"
    ]
    assert not (tmp_path / "runs").exists()


WORKER = """
import os, sys
from glassformer.data import TokenBatches
from glassformer.errors import DataError

if os.environ["RANK"] == "1":
    draw = TokenBatches.__next__
    def broken(self):
        if self.step == 30:
            raise DataError("play.txt: the disk does not answer")
        return draw(self)
    TokenBatches.__next__ = broken

from glassformer.cli import main
main()
"""


def test_an_error_of_one_process_ends_all_with_its_message(tmp_path):
    (tmp_path / "play.txt").write_text(PLAY)
    (tmp_path / "worker.py").write_text(WORKER)
    words = ["train", *TINY, "training.steps=100", "--data", "play.txt", "--out", "run", "-q"]
    process = torchrun(2, "worker.py", *words, cwd=tmp_path)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    lines = own_lines(err)
    assert "rank 1: error: play.txt: the disk does not answer" in lines
    next_step = "step-000020 is kept, continue with: torchrun --nproc-per-node 2 -m glassformer resume run"
    assert f"error: another process of this run has ended; {next_step}" in lines
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000020"]


UNEQUAL = """
import json
import os
from glassformer.recipes import resolve

resolve.typical_gflops = lambda device: 400.0 if os.environ["RANK"] == "1" else 2.0

from glassformer.cli import main
main()
"""


def test_a_shape_that_follows_from_the_machine_is_the_same_in_every_process(tmp_path):
    """Two processes never measure the same speed, and a run with no recipe takes its size from it."""
    (tmp_path / "play.txt").write_text(PLAY * 40)
    (tmp_path / "worker.py").write_text(UNEQUAL)
    words = ["train", "training.steps=2", "training.sample_every=0", "training.precision=fp32", "--data", "play.txt"]
    process = torchrun(2, "worker.py", *words, "--out", "run", "-q", cwd=tmp_path)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert out.count("validation loss") == 1


def test_a_translator_spread_over_processes_learns_what_one_learns(tmp_path):
    """Encoder and decoder, with Muon, which needs every matrix whole."""
    from glassformer import recipes

    pairs = [
        {"source": " ".join(words), "target": " ".join(reversed(words))}
        for words in zip(*[iter(PLAY.split())] * 4, strict=False)
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    words = [
        "task.kind=translate", "tokenizer.kind=characters", "model.n_layer=2", "model.n_embd=16",
        "model.block_size=48", "training.steps=6", "training.batch_size=8", "training.precision=fp32",
    ]  # fmt: skip
    process = torchrun(
        2, "-m", "glassformer", "train", "--data", "pairs.jsonl", *words, "training.sharding=full", "-q",
        "--out", "two", cwd=tmp_path,
    )  # fmt: skip
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    recipes.train(None, words, data=str(tmp_path / "pairs.jsonl"), out=tmp_path / "one")
    one, two = (RunFolder(tmp_path / name).read_metrics() for name in ("one", "two"))
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert two[-1]["val_loss"] == pytest.approx(one[-1]["val_loss"], rel=1e-4)
