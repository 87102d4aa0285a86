"""The loop: take a batch, compute the loss, update the weights, evaluate, keep. It knows `Task` and `Batches`, and no
particular model, data or metric."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

from glassformer.errors import GlassformerError, LostProcessError, RunError
from glassformer.evaluation import WindowLosses
from glassformer.renamed import old_arguments
from glassformer.tasks import Batches, Task
from glassformer.training.callbacks import Callback, RunLog
from glassformer.training.checkpoints import CheckpointWriter
from glassformer.training.diagnostics import StepDiagnostics, sample_record, watched_activations
from glassformer.training.formats import finite_number
from glassformer.training.interrupts import Interrupted, polite_interrupts
from glassformer.training.monitor import DivergenceMonitor
from glassformer.training.recovery import RolledBack, first_bad_number, how_to_continue, recover, resume_command
from glassformer.training.run_folder import RunFolder
from glassformer.training.schedules import Extended, Schedule
from glassformer.training.step import Batch, PendingResult, StepResult, TrainStep

LATE = "noticed one step late (training.lag_steps=1), so the weights at hand hold it"
KEPT = ("tokens", "seconds", "best", "rate", "skipped")  # attributes of a `Trainer` that a checkpoint keeps


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how often, how careful. `*_every` are steps, 0 is never (the last step always evaluates and saves)."""

    steps: int
    eval_every: int = 250
    sample_every: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 3
    whole_split: bool = True  # whether evaluations read the whole validation split, or a part of it
    # Read the numbers of a step while the next one is computed, so that a GPU never waits for them. A step is logged,
    # and a divergence noticed, one step late; steps that evaluate, sample or save are read at once.
    lag: bool = False
    # What to do about a NaN, or a loss that jumped and stays up: `stop` with a report; or go back to the last
    # checkpoint and leave out the batch (`skip`) or halve the learning rate (`lower`)
    on_divergence: str = "stop"
    watch: str = ""  # pattern of the taps whose activations are measured at evaluations


class _Underway(NamedTuple):
    """A step, by its number from 1 on, that has begun; its numbers are not read yet."""

    step: int
    pending: PendingResult
    batch: Batch
    factor: float
    started: float


class Trainer:
    """One run in memory.

    Args:
        task: what is learned, on its data.
        train_step: computes the gradient of this process's share of a batch, and updates the weights.
        batches: of the task, perhaps prefetched.
        operations, peak: floating-point operations of a token, and those a second that this machine can do, for the
            utilisation; without a peak there is none.
    """

    @old_arguments(listeners="callbacks", update="train_step")
    def __init__(
        self,
        *,
        model: Any,
        task: Task,
        train_step: TrainStep,
        batches: Batches,
        schedule: Schedule | Extended,
        settings: TrainingSettings,
        run: RunFolder,
        operations: float = 0.0,
        peak: float | None = None,
        callbacks: tuple[Callback, ...] = (),
    ):
        self.model, self.task, self.train_step, self.batches = model, task, train_step, batches
        self.schedule, self.settings, self.run, self.world = schedule, settings, run, train_step.world
        self.operations, self.peak, self.callbacks = operations, peak, callbacks
        self.n_answers, self.optimizer = task.n_answers, train_step.optimizer
        self.log = RunLog(run, callbacks, is_main=self.world.is_main)
        self.writer = CheckpointWriter(run, model, task, self.optimizer, self.world, keep=settings.keep_checkpoints)
        self.monitor = DivergenceMonitor(task.alarm, higher_is_better=task.score.direction == "higher")
        self.step = 0  # updates done
        self.tokens = 0
        self.seconds = 0.0  # time in the loop, over all sittings
        self.rate = 1.0  # factor on the learning rate that a recovery left
        self.skipped: list[int] = []  # steps whose first batch was left out
        self.best: dict[str, Any] | None = None  # the evaluation of `model/`: step, metrics, train
        self.windows: WindowLosses | None = None  # of the last evaluation
        self._ahead: _Underway | None = None  # a step that is done but for reading its numbers
        self._read_at = 0.0  # when the last numbers were read

    def train(self) -> None:
        """Train until `settings.steps` updates are done.

        Raises:
            Interrupted: after Ctrl-C, with a checkpoint written.
            DivergenceError: the loss or a gradient is not a number, or the loss jumped and stays up.
            RunError: the disk is full, or another process ended; the message states how to continue.
        """
        for callback in self.callbacks:
            callback.on_start(self)
        self.model.train()
        if self.step == 0 and self.shows_both_ends:
            self.log.sample(sample_record(self.model, self.task, 0))
        if self.step == 0 and self.settings.on_divergence != "stop":
            self.writer.write(0, best=False, state=self._state())  # something to go back to
        try:
            with polite_interrupts(patient=self.world.size > 1) as interrupted, self.world.lost_process_errors():
                while self.step < self.settings.steps:
                    with contextlib.suppress(RolledBack):
                        self._one_step(interrupted)
                self.writer.wait()
        except KeyboardInterrupt:
            raise Interrupted(f"stopped at once in step {self.step + 1}; {self._what_is_kept()}") from None
        except LostProcessError as error:
            raise LostProcessError(f"{error}; {self._what_is_kept()}") from error
        except GlassformerError as error:
            if type(error) is not GlassformerError:
                raise
            raise RunError(f"{error}; {self._what_is_kept()}") from error  # the disk is full
        finally:
            self.writer.join()
            for callback in self.callbacks:
                callback.on_end()

    @property
    def shows_both_ends(self) -> bool:
        """Whether samples are drawn before the first step and after the last: what tuning has changed."""
        return bool(self.settings.sample_every and self.task.tuned and self.task.run.start_from)

    def _one_step(self, interrupted: threading.Event) -> None:
        s, step, number = self.settings, self.train_step, self.step + 1
        last = number == s.steps
        evaluating = last or _due(number, s.eval_every)
        sampling = _due(number, s.sample_every) or (last and self.shows_both_ends)
        lagging = s.lag and not (evaluating or sampling or _due(number, s.checkpoint_every))
        if not lagging:
            self._catch_up()
        begun = self._begin(interrupted)
        if lagging:
            self._go_ahead(begun, interrupted)
            return
        measured = self._read(begun)
        watched = None
        if evaluating:
            watched = StepDiagnostics(self.model, self.world, sharded=step.sharded, targets=measured.targets)
        step.optimizer_step(measured, begun.factor)
        step.clear()
        self.step += 1
        record = self._record(begun, measured)
        better = False
        if watched is not None:
            diagnostics: dict[str, Any] = {"step": self.step, "parameters": watched.record()}
            if activations := watched_activations(self.model, self.task, s.watch):
                diagnostics["activations"] = activations
            better = self._evaluate(record)
        sample = sample_record(self.model, self.task, self.step) if sampling else None
        self.seconds += time.perf_counter() - begun.started
        self.log.step({**record, "seconds": round(self.seconds, 3)})
        if sample is not None:
            self.log.sample(sample)
        if watched is not None:
            self.log.diagnostics(diagnostics)
            self._warn(diagnostics, record)
        # several processes have to agree, so they stop one step later
        stop = measured.stop if self.world.size > 1 else interrupted.is_set()
        due = last or stop or _due(self.step, s.checkpoint_every)
        if better or due:
            windows = self.windows if better and s.whole_split else None
            self.writer.write(self.step, best=better, windows=windows, state=self._state() if due else None)
        if stop and not last:
            self._leave()

    def _begin(self, interrupted: threading.Event) -> _Underway:
        """Draw the batch of the next step and begin to compute its gradient."""
        started = time.perf_counter()
        factor = self.schedule(self.step) * self.rate
        for _ in range(self.skipped.count(self.step)):
            next(self.batches)
        batch = next(self.batches)
        pending = self.train_step.forward_backward(batch, stop=interrupted.is_set())
        return _Underway(self.step + 1, pending, batch, factor, started)

    def _read(self, begun: _Underway, *, late: bool = False) -> StepResult:
        """The numbers of a step. late: its update is done already.

        Raises:
            DivergenceError, RolledBack: they are bad.
        """
        measured = begun.pending.read()
        if trouble := self.monitor.divergence(measured.loss, measured.grad_norm):
            recover(self, trouble, begun.step, LATE if late else first_bad_number(self, begun.batch))
        return measured

    def _go_ahead(self, begun: _Underway, interrupted: threading.Event) -> None:
        """Update the weights without having seen the numbers, and read those of the step before meanwhile."""
        self.train_step.optimizer_step_unread(begun.pending, begun.factor)
        self.train_step.clear()
        self.step += 1
        asked = self._catch_up()
        self._ahead = begun
        self.seconds += time.perf_counter() - begun.started
        if asked if self.world.size > 1 else interrupted.is_set():
            self._catch_up()
            self.writer.write(self.step, best=False, state=self._state())
            self._leave()

    def _catch_up(self) -> bool:
        """Read and log the numbers of the step before, if that is still to do; whether a process was asked to stop."""
        begun, self._ahead = self._ahead, None
        if begun is None:
            return False
        measured = self._read(begun, late=True)
        self.log.step({**self._record(begun, measured), "seconds": round(self.seconds, 3)})
        return measured.stop

    def _leave(self) -> NoReturn:
        self.writer.wait()
        command = resume_command(self.run, self.world)
        raise Interrupted(f"stopped after step {self.step}, everything is saved; continue with: {command}")

    def _what_is_kept(self) -> str:
        self.writer.join()  # a checkpoint may be on its way
        return how_to_continue(self.run, self.world)

    def _record(self, begun: _Underway, measured: StepResult) -> dict[str, Any]:
        """Count a step; its line of metrics.jsonl, without what an evaluation adds."""
        now = time.perf_counter()
        speed = measured.targets / (now - max(begun.started, self._read_at))
        self._read_at = now
        self.tokens += measured.targets
        self.monitor.measured(measured.metrics)
        record: dict[str, Any] = {
            "step": begun.step,
            "tokens": self.tokens,
            "seconds": 0.0,
            "loss": measured.loss,
            "lr": self.optimizer.learning_rate * begun.factor,
            "grad_norm": measured.grad_norm,
            "tokens_per_second": round(speed),
            **measured.metrics,
        }
        if self.peak:
            record["mfu"] = round(speed * self.operations / self.peak, 4)
        return record

    def _evaluate(self, record: dict[str, Any]) -> bool:
        """Measure the weights on both splits, into the record (None where a value is not finite); whether they are the
        best so far."""
        score = self.task.score
        train = self.task.evaluate(self.model, "train", whole=False)
        record[score.train_name] = finite_number(train[score.metric].value)
        record["train_interval"] = finite_number(train[score.metric].interval)
        measured = self.task.evaluate(self.model, whole=self.settings.whole_split)
        record |= {f"val_{name}": finite_number(metric.value) for name, metric in measured.values.items()}
        record["val_interval"] = finite_number(measured[score.metric].interval)
        self.windows = measured.windows
        best = None if self.best is None else self.best["metrics"][score.metric][0]
        if not score.is_better(measured[score.metric].value, best):
            return False
        self.best = {"step": self.step, "metrics": measured.to_dict(), "train": train.to_dict()}
        return True

    def _warn(self, diagnostics: dict[str, Any], evaluation: dict[str, Any]) -> None:
        """Report what an evaluation shows: overfitting, a rate too high, dead units, what the task names."""
        taps, score = diagnostics.get("activations", {}), self.task.score
        silent = {name: seen["silent"] for name, seen in taps.items() if "silent" in seen}
        values = evaluation[score.train_name], evaluation[score.name]
        history = self.monitor.history(evaluation)
        causes = self.task.causes(history) if history else {}
        for text in self.monitor.warnings(self.step, *values, diagnostics["parameters"], silent, causes):
            self.event("warning", text)

    def event(self, kind: str, text: str) -> None:
        """Report something that a person should know, and keep it in events.jsonl (which a resume does not cut)."""
        self.log.event({"step": self.step, "seconds": round(self.seconds, 3), "kind": kind, "text": text})

    def _state(self) -> dict[str, Any]:
        """Everything that `resume` needs, but weights, optimizer and generators, which the writer adds."""
        parts = {"batches": self.batches.state_dict(), "monitor": self.monitor.state_dict()}
        return {**{name: getattr(self, name) for name in KEPT}, **parts}

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; weights, optimizer and generators are `load_checkpoint`'s."""
        self._ahead, self.step = None, state["step"]
        for name in KEPT:
            setattr(self, name, state[name])
        if self.best and not math.isfinite(self.best["metrics"][self.task.score.metric][0]):
            self.best = None  # an older version kept a NaN as the best
        self.monitor.load_state_dict(state["monitor"])
        self.batches.load_state_dict(state["batches"])
        if self.world.is_main:
            self.run.cut(state["logs"])


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
