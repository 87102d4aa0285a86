"""A disk that is full: one line, what was there before stays whole, and the run can go on when there is room again.

Once on a real small disk (tmpfs, where the tests may mount one), and at every write by the system's own refusal to
write beyond a file size (RLIMIT_FSIZE, in a process of its own).
"""

from __future__ import annotations

import errno
import json
import os
import subprocess

import pytest
from command_line import TINY, files, own_process, same_end
from patience import PATIENCE

from glassformer import files as file_room


@pytest.fixture
def small_disk(tmp_path):
    """A disk of its own of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"needs the right to mount a small disk: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", disk], check=True)


def fill(disk) -> None:
    """Leave nothing free."""
    with open(disk / "filler", "wb", buffering=0) as file:
        for size in (4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError as error:
                assert error.errno == errno.ENOSPC


def test_a_real_disk_that_is_full_from_the_start(glassformer, play, small_disk):
    fill(small_disk)
    result = glassformer("train", *TINY, "--data", "play.txt", "--out", small_disk / "deep" / "run", "-q")
    assert result.code == 1 and result.out == ""
    lines = [line for line in result.err.splitlines() if line.startswith("error: ")]
    assert lines == [
        f"error: {small_disk}/deep/run/recipe.toml: no space left on the disk; nothing was replaced: free some space "
        "and run again"
    ]
    assert list(files(small_disk)) == ["filler"]  # no half-made run


def test_a_real_disk_that_fills_up_while_it_trains(glassformer, play, small_disk, small_runs):
    """Checkpoints are kept without end, so the disk is full after a few of them."""
    run = small_disk / "run"
    settings = [*TINY, "training.checkpoint_every=1", "training.keep_checkpoints=99"]
    result = glassformer("train", *settings, "--data", "play.txt", "--out", run, "-q")
    assert result.code == 1 and result.out == ""
    checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir())
    assert 2 < len(checkpoints) < 13 and not list(small_disk.rglob("*.part"))
    line = result.err.splitlines()[-1]
    assert line.startswith(f"error: {run}/") and "no space left on the disk; nothing was replaced" in line
    assert line.endswith(f"; {checkpoints[-1]} is kept, continue with: glassformer resume {run}")
    subprocess.run(["mount", "-o", "remount,size=4m", small_disk], check=True)
    assert glassformer("resume", run, "-q").code == 0
    assert same_end(run, small_runs / "finished")


class FullDisk:
    """Says ENOSPC when a file whose path holds `part` is flushed to the disk for the n-th time."""

    def __init__(self, monkeypatch, part: str, n: int = 1):
        self.part, self.left = part, n
        self.flush = file_room._flush_to_disk
        monkeypatch.setattr(file_room, "_flush_to_disk", self)

    def __call__(self, path):
        if self.part in str(path):
            self.left -= 1
            if self.left == 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        self.flush(path)


@pytest.mark.parametrize(
    ("part", "n", "file", "next_step"),
    [
        ("recipe.toml", 1, "recipe.toml", None),
        ("run/.model.", 1, "model/config.json", "no checkpoint yet, start again with: glassformer resume run"),
        (".step-000004.", 1, "checkpoints/step-000004", "no checkpoint yet, start again with: glassformer resume run"),
        (".step-000008.", 1, "checkpoints/step-000008", "step-000004 is kept, continue with: glassformer resume run"),
        (".step-000012.", 8, "checkpoints/step-000012", "step-000008 is kept, continue with: glassformer resume run"),
        ("run/.model.", 25, "model/", "step-000008 is kept, continue with: glassformer resume run"),
    ],
)
def test_full_at_any_write(glassformer, play, tmp_path, small_runs, monkeypatch, part, n, file, next_step):
    disk = FullDisk(monkeypatch, part, n)
    every = 6 if part == "run/.model." and n == 1 else 4  # the first evaluation comes before the first checkpoint
    settings = [*TINY, f"training.checkpoint_every={every}"]
    result = glassformer("train", *settings, "--data", "play.txt", "--out", "run", "-q")
    assert disk.left <= 0, "the write that was to fail never came"
    line = result.err.splitlines()[-1]
    assert result.code == 1 and result.out == ""
    assert line.startswith(f"error: run/{file}")
    assert ": no space left on the disk; nothing was replaced: free some space and run again" in line
    assert not list(tmp_path.rglob("*.part")) and not list(tmp_path.rglob("*.old"))
    if next_step is None:
        assert list(files(tmp_path)) == ["play.txt"]
        return
    assert next_step in line
    if "resume" in next_step:
        assert glassformer("resume", "run", "-q").code == 0
        assert same_end(tmp_path / "run", small_runs / "finished")


def test_a_limit_on_the_size_of_files(play, tmp_path):
    """The kernel itself refuses (EFBIG); the cache must not keep half a store."""
    import resource

    process = own_process("data", "prepare", "play.txt", "--out", "store", cwd=tmp_path,
                          preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000)))  # fmt: skip
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1 and out == ""
    assert err.startswith("error: store") and err.count("\n") == 1 and "larger than the disk or a limit allows" in err
    assert list(files(tmp_path)) == ["play.txt"]


def test_a_log_line_that_does_not_fit_is_cut_away_by_resume(glassformer, half, small_runs):
    """A crash or a full disk may leave half a line at the end of the log."""
    with open(half / "metrics.jsonl", "a") as log:
        log.write('{"step": 8, "tok')
    assert glassformer("resume", half, "-q").code == 0
    lines = [json.loads(line)["step"] for line in (half / "metrics.jsonl").read_text().splitlines()]
    assert lines == list(range(1, 14))
    assert same_end(half, small_runs / "finished")
