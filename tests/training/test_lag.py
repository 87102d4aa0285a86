"""The lag of one step, forced on a CPU: the same run, its numbers read while the next step is under way."""

from __future__ import annotations

import json

import pytest
import torch
from tiny_runs import SMALL, PoisonAt, StopAfter
from toys import toy_config

from glassformer import recipes
from glassformer.errors import DivergenceError
from glassformer.models import Decoder
from glassformer.tasks import NextToken
from glassformer.training import Callback, Interrupted, LossModule, RunFolder, TrainStep, build_optimizer
from glassformer.training.step import PendingResult

TINY = [
    *SMALL, "training.steps=23", "training.micro_batch_size=4", "training.dropout=0.1", "training.eval_every=10",
    "training.checkpoint_every=7", "training.warmup_steps=2",
]  # fmt: skip
LAG = [*TINY, "training.lag_steps=1"]


def lines(run) -> list[dict]:
    return RunFolder(run).read_metrics()


@pytest.mark.parametrize("optimizer", ["adamw", "muon", "sgd"])
def test_it_is_the_same_run(play, tmp_path, optimizer):
    """All numbers of all steps, in order; equal to rounding, for the division is done in another place."""
    plain, late = (
        recipes.train(None, [*settings, f"training.optimizer={optimizer}"], data=str(play), out=tmp_path / name).path
        for name, settings in (("plain", TINY), ("late", LAG))
    )
    assert [line["step"] for line in lines(late)] == list(range(1, 24))
    for a, b in zip(lines(plain), lines(late), strict=True):
        assert a.keys() == b.keys() and (a["tokens"], a["lr"]) == (b["tokens"], b["lr"])
        for key in a.keys() & {"loss", "grad_norm", "val_loss", "train_loss_eval"}:
            assert a[key] == pytest.approx(b[key], rel=1e-4)


class Order(Callback):
    """When each step is begun and when its numbers are read."""

    def __init__(self, monkeypatch):
        self.seen: list[tuple[str, int]] = []
        self.monkeypatch = monkeypatch

    def on_start(self, trainer):
        """From here on: the plan has tried a few steps before."""
        begin, read = TrainStep.forward_backward, PendingResult.read

        def begun(update, batch, **how):
            sums = begin(update, batch, **how)
            self.seen.append(("begin", trainer.step + 1))
            sums.step = trainer.step + 1
            return sums

        def was_read(sums):
            self.seen.append(("read", sums.step))
            return read(sums)

        self.monkeypatch.setattr(TrainStep, "forward_backward", begun)
        self.monkeypatch.setattr(PendingResult, "read", was_read)


def test_a_step_is_read_after_the_next_one_has_begun(play, tmp_path, monkeypatch):
    order = Order(monkeypatch)
    recipes.train(None, [*LAG, "training.steps=9"], data=str(play), out=tmp_path / "run", callbacks=[order])
    assert [f"{what[0]}{step}" for what, step in order.seen] == [
        *("b1", "b2", "r1", "b3", "r2", "b4", "r3", "b5", "r4", "b6", "r5"),
        *("r6", "b7", "r7"),  # step 7 saves, so it is read before anything is written
        *("b8", "r8", "b9", "r9"),  # the last one too
    ]


def test_nothing_between_gradient_and_update_asks_for_a_number():
    """Tensors of the device `meta` have no values: whatever reads one raises. A GPU would wait there."""
    model = Decoder(toy_config()).to("meta")

    class Loss(LossModule):
        def forward(self, *batch):
            logits = self.model(batch[0])
            return logits.float().sum(), torch.ones((), device="meta"), {}

    settings = {"learning_rate": 0.1, "matrix_learning_rate": 0.1, "betas": (0.9, 0.9), "weight_decay": 0.1}
    for kind in ("sgd", "muon"):
        train_step = TrainStep(
            Loss(model, NextToken().loss), build_optimizer(kind, model, **settings), micro_batch_size=2
        )
        ids = torch.zeros(5, 7, dtype=torch.int64, device="meta")
        train_step.optimizer_step_unread(train_step.forward_backward((ids, ids)), 0.5)
        with pytest.raises(NotImplementedError):
            train_step.forward_backward((ids, ids)).read()
        train_step.clear()


@pytest.mark.parametrize("stop", [3, 8])
def test_stopped_and_resumed_it_is_the_same_run_bit_for_bit(play, tmp_path, stop):
    recipes.train(None, LAG, data=str(play), out=tmp_path / "whole")
    with pytest.raises(Interrupted, match=rf"stopped after step {stop + 1},"):  # the next one was under way
        recipes.train(None, LAG, data=str(play), out=tmp_path / "halves", callbacks=[StopAfter(stop)])
    assert lines(tmp_path / "halves")[-1]["step"] == stop + 1
    recipes.resume(tmp_path / "halves")
    a, b = (tmp_path / name / "checkpoints" / "step-000023" for name in ("whole", "halves"))
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        assert (a / file).read_bytes() == (b / file).read_bytes()
    known = ("step", "tokens", "loss", "grad_norm", "val_loss")
    assert [[x.get(k) for k in known] for x in lines(tmp_path / "whole")] == [
        [x.get(k) for k in known] for x in lines(tmp_path / "halves")
    ]


def test_a_divergence_is_noticed_one_step_late_and_no_bad_weight_is_kept(play, tmp_path):
    with pytest.raises(DivergenceError, match=r"at step 17: .*one step late.*keeps step-000014"):
        recipes.train(None, LAG, data=str(play), out=tmp_path / "run", callbacks=[PoisonAt(17)])
    run = RunFolder(tmp_path / "run")
    assert run.read_metrics()[-1]["step"] == 16
    state = json.loads((run.checkpoints / "step-000014" / "state.json").read_text())
    assert state["step"] == 14 and state["tokens"] == 14 * 66


def test_a_divergence_just_before_a_checkpoint_is_noticed_before_it_is_written(play, tmp_path):
    settings = [*LAG, "training.checkpoint_every=9"]  # step 18 would save what step 17 spoiled
    with pytest.raises(DivergenceError, match=r"at step 17: .*keeps step-000009"):
        recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[PoisonAt(17)])
    assert [folder.name for folder in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000009"]


def test_a_batch_is_skipped_as_without_a_lag(play, tmp_path):
    plain, late = (
        recipes.train(
            None,
            [*settings, "training.on_divergence=skip"],
            data=str(play),
            out=tmp_path / name,
            callbacks=[PoisonAt(17)],
        ).path
        for name, settings in (("plain", TINY), ("late", LAG))
    )
    for run in (plain, late):
        state = json.loads((run / "checkpoints" / "step-000023" / "state.json").read_text())
        assert state["skipped"] == [16] and state["batches"]["step"] == 24
    for a, b in zip(lines(plain), lines(late), strict=True):
        assert (a["step"], a["tokens"]) == (b["step"], b["tokens"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-4)
