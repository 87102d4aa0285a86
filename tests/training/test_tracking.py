"""Trackers get what the run folder gets, each step once; read back with the trackers' own formats."""

from __future__ import annotations

import importlib.util
import json
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from patience import PATIENCE

from glassformer.errors import MissingExtraError, UsageError
from glassformer.recipes import read_recipe
from glassformer.training import TRACKERS, Callback, RunFolder, trackers

RECIPE = 'name = "mine"\n[training]\nsteps = 6\nlearning_rate = 0.01\n'
TEXT = "KING:\n<b>no</b> & so"
needs = {
    name: pytest.mark.skipif(not importlib.util.find_spec(name), reason="needs the extra track") for name in TRACKERS
}


@pytest.fixture
def run(tmp_path) -> RunFolder:
    run = RunFolder(tmp_path / "mine")
    run.path.mkdir()
    run.recipe.write_text(RECIPE)
    return run


def step(n: int, loss: float | None = None) -> dict:
    record = {"step": n, "tokens": 10 * n, "loss": 1 / n if loss is None else loss, "lr": 0.01}
    return record | ({"val_loss": 2.0 + n, "val_bits_per_byte": None} if n % 3 == 0 else {})


def sitting(tracker: Callback, after: int, until: int, offset: float = 0.0) -> None:
    """Steps after + 1 ... until, as the loop tells them."""
    tracker.on_start(SimpleNamespace(step=after))  # type: ignore[arg-type]
    for n in range(after + 1, until + 1):
        tracker.on_step(step(n, offset + 1 / n))
        if n % 3 == 0:
            tracker.on_sample(n, TEXT)
            tracker.on_diagnostics(
                {
                    "step": n,
                    "parameters": {"head.weight": {"weight": 1.0, "gradient": 0.5, "update": 1e-3}},
                    "activations": {"final.norm": {"rms": 0.7}},
                }
            )
    tracker.on_event({"step": until, "seconds": 1.0, "kind": "warning", "text": "look"})
    tracker.on_end()


def scalars(run: RunFolder, tag: str) -> list[tuple[int, float]]:
    """As TensorBoard itself reads the folder."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0})
    events.Reload()
    return [(event.step, pytest.approx(event.value)) for event in events.Scalars(tag)]


def texts(run: RunFolder, tag: str) -> list[tuple[int, str]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"tensors": 0})
    events.Reload()
    found = events.Tensors(f"{tag}/text_summary")
    return [(event.step, event.tensor_proto.string_val[0].decode()) for event in found]


@needs["tensorboard"]
def test_tensorboard_reads_back_what_was_logged(run):
    sitting(*trackers(["tensorboard"], run), 0, 6)
    assert scalars(run, "train/loss") == [(n, 1 / n) for n in range(1, 7)]
    assert scalars(run, "validation/loss") == [(3, 5.0), (6, 8.0)]
    assert scalars(run, "update/head.weight") == [(3, 1e-3), (6, 1e-3)]
    assert scalars(run, "activation/final.norm/rms") == [(3, 0.7), (6, 0.7)]
    assert texts(run, "sample") == [(n, "    KING:\n    <b>no</b> & so") for n in (3, 6)]
    assert texts(run, "event/warning") == [(6, "    look")]
    assert texts(run, "recipe") == [(0, "\n".join("    " + line for line in RECIPE.splitlines()))]


@needs["tensorboard"]
def test_each_step_once_after_a_resume(run):
    """Killed after step 5, resumed from the checkpoint of step 3; earlier numbers of 4 and 5 are forgotten."""
    tracker = trackers(["tensorboard"], run)[0]
    sitting(tracker, 0, 5)
    sitting(*trackers(["tensorboard"], run), 3, 6, offset=0.5)
    shown = [(n, 1 / n) for n in (1, 2, 3)] + [(n, 0.5 + 1 / n) for n in (4, 5, 6)]
    assert scalars(run, "train/loss") == shown
    assert len(list((run.path / "tensorboard").iterdir())) == 2


@needs["tensorboard"]
def test_each_step_once_after_a_roll_back(run):
    tracker = trackers(["tensorboard"], run)[0]
    tracker.on_start(SimpleNamespace(step=0))
    for n, loss in ((1, 1.0), (2, 2.0), (3, 9.0), (4, 9.0), (3, 3.0), (4, 4.0), (5, 5.0)):
        tracker.on_step(step(n, loss))
    tracker.on_end()
    assert scalars(run, "train/loss") == [(n, float(n)) for n in range(1, 6)]


def wandb_records(file: Path):
    """The records of a `.wandb` file: protobufs in the log format of LevelDB (blocks of 32 KiB, records of header
    checksum, length and kind, where kind 1 is whole and 4 the last piece), after 7 bytes of its own."""
    from wandb.proto import wandb_internal_pb2

    data, at, parts = file.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        parts += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):
            yield wandb_internal_pb2.Record.FromString(parts)
            parts = b""


@needs["wandb"]
def test_wandb_keeps_an_offline_run_that_holds_the_history(run, monkeypatch):
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_PROJECT"):
        monkeypatch.delenv(name, raising=False)
    sitting(*trackers(["wandb"], run), 0, 6)
    (file,) = run.path.glob("wandb/offline-run-*/*.wandb")
    records, until = [], time.monotonic() + PATIENCE
    while not any(record.WhichOneof("record_type") == "exit" for record in records):  # its own process writes, in time
        assert time.monotonic() < until
        records = list(wandb_records(file))
    shown = [
        {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(r["step"], r["train/loss"]) for r in shown if "train/loss" in r] == [(n, 1 / n) for n in range(1, 7)]
    assert [(r["step"], r["validation/loss"]) for r in shown if "validation/loss" in r] == [(3, 5.0), (6, 8.0)]
    assert [r["update/head.weight"] for r in shown if "update/head.weight" in r] == [1e-3, 1e-3]
    assert [(r["step"], r["event/warning"]) for r in shown if "event/warning" in r] == [(6, "look")]
    first = next(record.run for record in records if record.WhichOneof("record_type") == "run")
    config = {item.key: json.loads(item.value_json) for item in first.config.update}
    assert config["training"] == {"steps": 6, "learning_rate": 0.01}
    assert (first.run_id, first.display_name) == ((run.path / "wandb" / "run-id").read_text(), "mine")
    (sample, _) = sorted(file.parent.glob("files/media/html/*.html"))
    assert "&lt;b&gt;no&lt;/b&gt; &amp; so" in sample.read_text()


@pytest.mark.parametrize(("name", "module"), [("tensorboard", "torch.utils.tensorboard"), ("wandb", "wandb")])
def test_a_missing_package_is_reported_before_anything_is_written(run, monkeypatch, name, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(
        MissingExtraError, match=r"needs an optional package; run: .* -m pip install 'glassformer\[track\]'"
    ):
        trackers([name], run)
    assert [path.name for path in run.path.iterdir()] == ["recipe.toml"]


def test_a_wrong_name_is_refused_at_once(run):
    with pytest.raises(UsageError, match=r"training\.track='tensorbord' is unknown; did you mean tensorboard\?"):
        read_recipe("shakespeare-fast", ["training.track=tensorbord"])
    with pytest.raises(UsageError, match="'x' is unknown; known: tensorboard, wandb"):
        trackers(["x"], run)


def test_one_or_several_may_be_named():
    assert read_recipe("shakespeare-fast", ["training.track=tensorboard, wandb"]).training.track == list(TRACKERS)
    assert read_recipe("shakespeare-fast", ['training.track=["wandb"]']).training.track == ["wandb"]
    assert read_recipe("shakespeare-fast").training.track == []
