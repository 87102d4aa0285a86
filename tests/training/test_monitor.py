"""Divergence: a NaN at step 37, a loss that jumps, and the warnings, each with its cause and what was kept."""

from __future__ import annotations

import json
import math
import random

import pytest
import torch
from tiny_runs import SMALL, Die, Heard, PoisonAt

from glassformer import recipes
from glassformer.errors import DivergenceError
from glassformer.tasks import TASKS, NextToken
from glassformer.training import Callback, RunFolder, latest_checkpoint
from glassformer.training.diagnostics import activations_during
from glassformer.training.monitor import DivergenceMonitor

TINY = [
    *SMALL, "training.steps=60", "training.micro_batch_size=4", "training.dropout=0.1", "training.eval_every=20",
    "training.checkpoint_every=10", "training.sample_every=20", "training.optimizer=adamw",
]  # fmt: skip
BAD_STEP = 37


def test_a_nan_at_step_37_stops_with_a_report_and_keeps_what_was_good(play, tmp_path):
    with pytest.raises(DivergenceError) as caught:
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[PoisonAt(BAD_STEP)])
    norms = [f"{line['grad_norm']:.3g}" for line in RunFolder(tmp_path / "run").read_metrics()]
    assert len(norms) == 36
    loss = str(caught.value).split("loss ")[1].split(",")[0]
    assert str(caught.value) == (
        f"training diverged at step 37: loss {loss}, gradient norm nan (gradient norms before it: "
        f"{' '.join(norms[-5:])}), first bad number in blocks.1.feedforward.down.weight (its gradient); "
        f"{tmp_path / 'run'} keeps step-000030; try half the learning rate (training.learning_rate), more warm-up, "
        "training.grad_clip=1, or training.on_divergence=skip to leave out such a batch"
    )
    assert latest_checkpoint(RunFolder(tmp_path / "run"))[0].name == "step-000030"


def test_a_nan_in_a_weight_is_found(play, tmp_path):
    class Break(Callback):
        def on_start(self, trainer):
            self.model = trainer.model

        def on_step(self, record):
            if record["step"] == 36:
                with torch.no_grad():
                    self.model.blocks[1].attention.qkv.weight[0, 0] = float("nan")

    with pytest.raises(DivergenceError, match=r"diverged at step 37.*blocks\.1\.attention\.qkv\.weight \(a weight\)"):
        recipes.train(None, TINY, data=str(play), out=tmp_path / "run", callbacks=[Break()])


def test_skip_goes_back_and_leaves_out_the_batch(play, tmp_path):
    """The batch of step 37 poisons; skipped, every later step reads the batch after the one it would have read."""
    heard = Heard()
    settings = [*TINY, "training.on_divergence=skip"]
    run = recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[PoisonAt(BAD_STEP), heard])
    assert run.steps == 60
    (event,) = heard.events
    assert event["kind"] == "rolled back" and event["step"] == 30
    assert event["text"].endswith("; back to step-000030, the batch of step 37 is left out")
    assert [json.loads(line) for line in (run.path / "events.jsonl").read_text().splitlines()][-1] == event
    lines = RunFolder(run.path).read_metrics()
    assert [line["step"] for line in lines] == list(range(1, 61))
    state = json.loads((run.path / "checkpoints" / "step-000060" / "state.json").read_text())
    assert state["batches"]["step"] == 61 and state["skipped"] == [36] and state["monitor"]["recoveries"] == 1


def test_lower_goes_back_and_halves_the_rate(play, tmp_path):
    class PoisonOnce(Callback):
        def on_start(self, trainer):
            trainer.model.head.weight.register_hook(
                lambda g: g * float("nan") if trainer.step == BAD_STEP - 1 and trainer.rate == 1 else g
            )

    settings = [*TINY, "training.on_divergence=lower", "training.schedule=constant", "training.warmup_steps=0"]
    run = recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[PoisonOnce()])
    rates = [line["lr"] for line in RunFolder(run.path).read_metrics()]
    assert rates == [1e-3] * 30 + [5e-4] * 30


def test_a_skip_survives_a_resume(play, tmp_path, monkeypatch):
    """Killed after the roll-back and before the next checkpoint: the resumed run meets the NaN and treats it again."""

    settings = [*TINY, "training.on_divergence=skip"]
    recipes.train(None, settings, data=str(play), out=tmp_path / "whole", callbacks=[PoisonAt(BAD_STEP)])
    with pytest.raises(MemoryError):
        recipes.train(None, settings, data=str(play), out=tmp_path / "died", callbacks=[PoisonAt(BAD_STEP), Die(38)])
    recipes.resume(tmp_path / "died", callbacks=[PoisonAt(BAD_STEP)])
    a, b = (tmp_path / name / "checkpoints" / "step-000060" for name in ("whole", "died"))
    for file in ("model/model.safetensors", "optimizer.safetensors"):
        assert (a / file).read_bytes() == (b / file).read_bytes()


def test_recoveries_come_to_an_end(play, tmp_path):
    class AlwaysNaN(Callback):
        def on_start(self, trainer):
            trainer.model.head.weight.register_hook(lambda g: g * float("nan") if trainer.step == 36 else g)

    settings = [*TINY, "training.on_divergence=skip"]
    with pytest.raises(DivergenceError, match=r"keeps step-000030 after 5 recoveries"):
        recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[AlwaysNaN()])


def test_a_loss_that_jumps_and_stays_is_a_divergence_and_one_bad_batch_is_not():
    monitor = DivergenceMonitor()
    for step in range(50):
        assert monitor.divergence(2.0 + 0.01 * (step % 3), 1.0) is None
    assert monitor.divergence(9.0, 50.0) is None  # one bad batch
    assert monitor.divergence(2.0, 1.0) is None
    assert monitor.divergence(9.0, 50.0) is None and monitor.divergence(9.5, 60.0) is None
    assert monitor.divergence(10.0, 70.0) == "the loss rose from 2.009 to 10 and stayed up for 3 steps"
    assert monitor.norms[-2:] == [50.0, 60.0]


def losses_of_a_run(jump: float) -> list[float]:
    """Nats: 4 falls to 2 with noise of a twentieth, and from step 300 on everything is higher by `jump`."""
    noise = random.Random(5)
    return [2 + 2 * math.exp(-step / 60) + noise.gauss(0, 0.05) + jump * (step >= 300) for step in range(400)]


@pytest.mark.parametrize("unit", [1.0, 1000.0, 1e-3])
@pytest.mark.parametrize("zero", [0.0, -7.0])
def test_a_divergence_is_found_in_any_unit_and_a_healthy_run_is_left_alone(unit: float, zero: float):
    """A reward, a distance in pixels: only what the run has gained (2 nats) and its noise say what is much."""

    def found(losses: list[float], monitor: DivergenceMonitor) -> list[int]:
        return [i for i, loss in enumerate(losses) if monitor.divergence(unit * (loss + zero), 1.0)][:1]

    assert found(losses_of_a_run(0.0), DivergenceMonitor()) == []
    assert found(losses_of_a_run(0.45), DivergenceMonitor()) == []  # less than a quarter of the gain
    assert (
        found(losses_of_a_run(0.0)[200:300] * 9, DivergenceMonitor()) == []
    )  # no gain, as in fine-tuning: the noise alone counts
    assert found(losses_of_a_run(0.8), DivergenceMonitor()) == [302]
    assert found(losses_of_a_run(0.8), DivergenceMonitor(alarm=1.0 * unit)) == []  # the objective knows its unit
    assert found(losses_of_a_run(1.2), DivergenceMonitor(alarm=1.0 * unit)) == [302]


def test_a_task_sets_the_alarm_or_leaves_it_to_what_the_run_has_gained(play, tmp_path, monkeypatch):
    """The same loss in thousandths of a nat: the run is trained to its end, and the jump is found."""

    class Millinats(NextToken):
        alarm = None

        def loss(self, model, batch):
            total, count, more = super().loss(model, batch)
            return total * 1000 * (1 + 5 * (trainers[-1].step >= 40 and jumps)), count, more

    class Keep(Callback):
        def on_start(self, trainer):
            trainers.append(trainer)

    trainers, jumps = [], False
    recipes.train(None, TINY, data=str(play), out=tmp_path / "nats", callbacks=[Keep()])
    assert trainers[-1].monitor.alarm == 1.0
    monkeypatch.setitem(TASKS, "millinats", Millinats)
    settings = [*TINY, "task.kind=millinats"]
    run = recipes.train(None, settings, data=str(play), out=tmp_path / "healthy", callbacks=[Keep()])
    assert run.steps == 60 and trainers[-1].monitor.alarm is None
    jumps = True
    with pytest.raises(DivergenceError, match=r"at step 43: the loss rose from \d{4} "):
        recipes.train(None, settings, data=str(play), out=tmp_path / "jumps", callbacks=[Keep()])


def test_a_start_that_falls_steeply_is_no_divergence():
    monitor = DivergenceMonitor()
    assert all(
        monitor.divergence(loss, 1.0) is None for loss in [9.0, 3.0, 8.0, 2.0, 7.0] + [2.0 - i / 99 for i in range(99)]
    )


def test_the_monitor_remembers_through_json():
    monitor, other = DivergenceMonitor(), DivergenceMonitor()
    for i in range(30):
        monitor.divergence(3.0 - i / 50, 1.0 + i)
    monitor.warnings(30, 2.4, 2.5, {}, {"blocks.0.feedforward.hidden": 0.9})
    other.load_state_dict(json.loads(json.dumps(monitor.state_dict())))
    assert vars(other) == vars(monitor)


def test_overfitting_names_the_step_and_what_is_kept():
    monitor = DivergenceMonitor()
    shown = []
    for i, (train, validation) in enumerate([(3, 3), (2.5, 2.6), (2.0, 2.3), (1.6, 2.4), (1.3, 2.5), (1.0, 2.7)]):
        monitor.mean = 3.0 - i  # of the batches on the way, with dropout: it does not matter
        shown += monitor.warnings(100 * (i + 1), train, validation, {}, {})
    assert shown == [
        "overfitting since step 300: validation rises (2.3 to 2.7) while training falls (2 to 1); the "
        "weights of step 300 are kept in model/; try training.dropout=0.2, fewer steps or a smaller model"
    ]


@pytest.mark.parametrize(
    ("losses", "before"),
    [
        ([(3 - i / 5, v) for i, v in enumerate([3.0, 2.6, 2.3, 2.31, 2.29, 2.3, 2.28])], []),  # noise
        # a rate too high; the loss of noisy batches on the way may well fall from one evaluation to another
        ([(2.0, 2.3), (2.1, 2.4), (2.2, 2.5), (2.3, 2.7), (2.4, 2.8)], []),
        ([(1.0 - i / 9, v) for i, v in enumerate([2.4, 2.5, 2.6, 2.7])], [[100, 2.3, 2.5]]),  # of an older version
    ],
)
def test_other_rises_of_the_validation_loss_are_no_overfitting(losses, before):
    monitor = DivergenceMonitor()
    monitor.load_state_dict({**DivergenceMonitor().state_dict(), "evaluations": before})
    for i, (train, validation) in enumerate(losses):
        monitor.mean = 3.0 - i
        assert monitor.warnings(200 + 100 * i, train, validation, {}, {}) == []


def test_a_rate_too_high_is_reported_only_while_the_loss_does_not_fall():
    wild = {name: {"weight": 1.0, "gradient": 1.0, "update": 0.3} for name in "abc"}
    monitor = DivergenceMonitor()
    monitor.mean = 3.0
    assert monitor.warnings(100, 3.0, 3.0, wild, {}) == []  # nothing to compare with
    monitor.mean = 2.5
    assert monitor.warnings(200, 2.5, 2.5, wild, {}) == []  # it learns
    monitor.mean = 2.6
    assert monitor.warnings(300, 2.6, 2.6, wild, {}) == [
        "learning rate too high: a step changes the weights by 30% of their size, and the training loss no longer "
        "falls (2.5 to 2.6); try half of training.learning_rate"
    ]
    assert monitor.warnings(400, 2.6, 2.6, wild, {}) == []  # once


def test_dead_units_are_found_in_a_real_run(play, tmp_path):
    """Biases far below zero silence every unit of the second layer."""

    class Silence(Callback):
        def on_start(self, trainer):
            with torch.no_grad():
                trainer.model.blocks[1].feedforward.up.bias.fill_(-50.0)

    heard = Heard()
    settings = [*TINY, "model.family=classic", "model.bias=true", "model.activation=relu", "training.steps=20"]
    recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[Silence(), heard])
    dead = [event["text"] for event in heard.events if event["text"].startswith("dead units")]
    assert dead == [
        "dead units: 100% of blocks.1.feedforward.hidden answer to no token of the validation batch; try a lower "
        "training.learning_rate, more warm-up, or model.activation=gelu"
    ]


def test_the_text_is_looked_at_before_the_first_step(play, tmp_path):
    shown: list[str] = []
    play.write_text(play.read_text() + "\nZounds, ~quoth he.\n")  # Z and ~ in the part held out
    recipes.train(None, [*TINY, "training.steps=1", "training.batch_size=999"], data=str(play), out=tmp_path / "run",
                  log=shown.append)  # fmt: skip
    warnings = [line for line in shown if line.startswith("warning: ")]
    assert len(warnings) == 2
    assert warnings[0].startswith("warning: little text: a step reads 10,989 tokens and the training split holds ")
    assert "of 47 tokens" in warnings[1] and "never occur in the training split" in warnings[1]


def test_diagnostics_are_the_numbers_of_the_step(play, tmp_path):
    """Plain descent would move a weight by rate times gradient; AdamW's first step moves each by the rate."""
    seen = []

    class Watch(Callback):
        def on_start(self, trainer):
            self.before = {name: p.detach().clone() for name, p in trainer.model.named_parameters()}
            self.model = trainer.model

        def on_diagnostics(self, record):
            seen.append(record)
            for name, p in self.model.named_parameters():
                change, weight = p.detach() - self.before[name], self.before[name]
                row = record["parameters"][name]
                assert row["weight"] == pytest.approx(float(weight.square().mean().sqrt()), rel=1e-5)
                expected = float(change.square().mean().sqrt() / weight.square().mean().sqrt())
                assert row["update"] == pytest.approx(expected, rel=1e-4)

    settings = [*TINY, "training.steps=1", "training.watch_activations=true"]
    run = recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[Watch()])
    (record,) = seen
    assert record == json.loads((run.path / "diagnostics.jsonl").read_text())
    total = sum(row["gradient"] ** 2 * run_size for row, run_size in zip(
        record["parameters"].values(), sizes(run), strict=True))  # fmt: skip
    assert total**0.5 == pytest.approx(RunFolder(run.path).read_metrics()[0]["grad_norm"], rel=1e-4)
    assert record["activations"]["blocks.1.attention.pattern"]["entropy"] > 0
    assert record["activations"]["logits"]["rms"] > 0


def sizes(run):
    from glassformer.hub import load_model

    return [p.numel() for p in load_model(run.path / "model").parameters()]


def test_a_saved_state_does_not_change_while_it_is_written():
    monitor = DivergenceMonitor()
    monitor.measured({"reward": 1.0})
    state = monitor.state_dict()
    monitor.measured({"reward": 2.0, "kl": 3.0})
    assert state["sums"] == {"reward": [1.0, 1]}


def test_activations_are_those_of_the_taps(play):
    from toys import toy_ids, toy_model

    from glassformer.taps import listening

    model, ids = toy_model(activation="relu"), toy_ids(3, 7)
    kept = {}
    with listening(model, "*", lambda name, x: kept.__setitem__(name, x.detach())):
        model(ids)
    found = activations_during(model, lambda: model(ids))
    assert found.keys() == kept.keys()
    hidden = kept["blocks.0.feedforward.hidden"]
    assert found["blocks.0.feedforward.hidden"]["zero"] == pytest.approx(float((hidden == 0).float().mean()))
    assert found["blocks.0.feedforward.hidden"]["silent"] == float((hidden == 0).flatten(0, 1).all(0).float().mean())
    pattern = kept["blocks.1.attention.pattern"]
    entropy = -(pattern * pattern.clamp_min(1e-30).log()).sum(-1).mean()
    assert found["blocks.1.attention.pattern"]["entropy"] == pytest.approx(float(entropy), rel=1e-5)
