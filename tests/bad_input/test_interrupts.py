"""Ctrl-C and SIGTERM, sent to real processes at real times: nothing is lost, nothing half-made is left."""

from __future__ import annotations

import os
import signal

import pytest
from command_line import TINY, files, own_process, wait_for
from patience import PATIENCE

from glassformer import recipes
from glassformer.training import Callback, Interrupted

LONG = [*TINY, "training.steps=400", "training.eval_every=100", "training.sample_every=100",
        "training.checkpoint_every=150"]  # fmt: skip


@pytest.fixture(scope="module")
def whole(small_runs):
    """The run of `LONG` that nobody interrupts."""
    recipes.train(None, LONG, data=str(small_runs / "play.txt"), out=small_runs / "whole")
    return small_runs / "whole"


def lines(run) -> int:
    return (run / "metrics.jsonl").read_text().count("\n") if (run / "metrics.jsonl").exists() else 0


@pytest.mark.parametrize(("number", "after"), [(signal.SIGTERM, 1), (signal.SIGINT, 163)])
def test_a_stopped_run_is_saved_and_continues_as_if_nothing_had_happened(
    glassformer, play, tmp_path, whole, number, after
):
    process = own_process("train", *LONG, "--data", "play.txt", "--out", "run", "-q", cwd=tmp_path)
    wait_for(lambda: lines(tmp_path / "run") >= after, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    stopped = max(int(path.name[5:]) for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert after <= stopped < 400
    assert err.splitlines()[-1] == (
        f"stopped after step {stopped}, everything is saved; continue with: glassformer resume run"
    )
    assert (process.returncode, out) == (1, "")
    assert not list(tmp_path.rglob("*.part"))
    resumed = glassformer("resume", "run", "-q")
    assert resumed.code == 0 and resumed.err == f"going on after step {stopped} of 400\n"
    for name in ("model/model.safetensors", "checkpoints/step-000400/optimizer.safetensors", "samples.jsonl"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_second_ctrl_c_stops_at_once_and_keeps_the_last_checkpoint(play, tmp_path):
    class PressTwice(Callback):
        def on_step(self, record):
            if record["step"] == 7:
                for _ in range(2):
                    signal.raise_signal(signal.SIGINT)

    run = tmp_path / "run"
    with pytest.raises(Interrupted) as stopped:
        recipes.train(None, TINY, data=str(play), out=run, callbacks=[PressTwice()])
    assert str(stopped.value) == (
        f"stopped at once in step 8; step-000004 is kept, continue with: glassformer resume {run}"
    )
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # the handlers are put back


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_a_text_is_prepared_leaves_no_half_store(play, tmp_path, number):
    with open(tmp_path / "long.txt", "w") as file:
        for i in range(250_000):
            file.write(f"Citizen {i}:\nWe know't, we know't. Let us kill him, and we'll have corn at our own price.\n")
    cache = tmp_path / "cache"
    process = own_process("train", *TINY, "--data", "long.txt", "--out", "run", cwd=tmp_path,
                          env={**os.environ, "GLASSFORMER_CACHE": str(cache)})  # fmt: skip
    wait_for(lambda: cache.exists() and list(cache.rglob("*.part/*.bin")), process)
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out, err) == (1, "", "stopped\n")
    assert not [name for name, content in files(cache).items() if content is not None or ".part" in name]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_it_writes(finished, tmp_path, number):
    process = own_process("generate", finished, "--prompt", "Speak", "-n", "1000000", "--seed", "1", cwd=tmp_path)
    assert process.stdout is not None
    assert process.stdout.read(25)[:5] == "Speak"  # it is under way
    process.send_signal(number)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, err) == (1, "stopped\n")
