"""The loop: take a batch, compute the loss, update the weights, evaluate, keep. It knows `Task` and `Batches`, and no
particular model, data or metric."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, NoReturn

import torch

from glassformer.errors import DivergenceError, GlassformerError, LostProcessError, RunError
from glassformer.evaluation.estimate import Metrics, WindowLosses
from glassformer.figures import Note
from glassformer.renamed import old_arguments
from glassformer.tasks import Batches, Task
from glassformer.training.callbacks import Callback
from glassformer.training.checkpoints import CheckpointWriter, checkpoint_folders, latest_checkpoint, load_checkpoint
from glassformer.training.diagnostics import StepDiagnostics, activations_during
from glassformer.training.formats import finite_number
from glassformer.training.interrupts import polite_interrupts
from glassformer.training.monitor import MAX_RECOVERIES, DivergenceMonitor
from glassformer.training.non_finite import first_non_finite
from glassformer.training.run_folder import RunFolder
from glassformer.training.schedules import Extended, Schedule
from glassformer.training.step import Batch, PendingResult, StepResult, TrainStep

LATE = "noticed one step late (training.lag_steps=1), so the weights at hand hold it"


class Interrupted(GlassformerError):
    """Ctrl-C or SIGTERM, which is no mistake. The message states what is saved and how to continue."""

    prefix = ""


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


class _RolledBack(Exception):
    """The run stands at a checkpoint again."""


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
        self.n_answers = task.n_answers
        self.optimizer = train_step.optimizer
        beside = {"source_tokenizer": task.source_processor, "labels": task.labels}
        self.writer = CheckpointWriter(
            run,
            model,
            task.processor,
            train_step.optimizer,
            self.world,
            keep=settings.keep_checkpoints,
            kept_with_it={name: thing for name, thing in beside.items() if thing},
        )
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
        if self.step == 0 and self.settings.on_divergence != "stop":
            self.writer.write(0, best=False, state=self._state())  # something to go back to
        try:
            with polite_interrupts(patient=self.world.size > 1) as interrupted, self.world.lost_process_errors():
                while self.step < self.settings.steps:
                    with contextlib.suppress(_RolledBack):
                        self._one_step(interrupted)
                self.writer.wait()
        except KeyboardInterrupt:
            raise Interrupted(f"stopped at once in step {self.step + 1}; {self._next_step()}") from None
        except GlassformerError as error:
            if type(error) not in (GlassformerError, LostProcessError):
                raise
            kind = LostProcessError if isinstance(error, LostProcessError) else RunError  # else the disk is full
            raise kind(f"{error}; {self._next_step()}") from error
        finally:
            self.writer.join()
            for callback in self.callbacks:
                callback.on_end()

    def _one_step(self, interrupted: threading.Event) -> None:
        s, step = self.settings, self.step + 1
        last = step == s.steps
        evaluating, sampling = last or _due(step, s.eval_every), _due(step, s.sample_every)
        lagging = s.lag and not (evaluating or sampling or _due(step, s.checkpoint_every))
        if not lagging:
            self._catch_up()
        begun = self._begin(interrupted)
        if lagging:
            self._go_ahead(begun, interrupted)
            return
        measured = self._read(begun)
        watched = None
        if evaluating:
            sharded, targets = self.train_step.sharded, measured.targets
            watched = StepDiagnostics(self.model, self.world, sharded=sharded, targets=targets)
        self.train_step.optimizer_step(measured, begun.factor)
        self.train_step.clear()
        self.step += 1
        record = self._record(begun, measured)
        better = False
        if watched is not None:
            parameters = watched.record()
            activations = self._activations()
            better = self._evaluate(record)
        sample = self._sample() if sampling else None
        self.seconds += time.perf_counter() - begun.started
        record["seconds"] = round(self.seconds, 3)
        self._log(record, sample)
        if watched is not None:
            self._diagnose(parameters, activations, record)
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
            DivergenceError, _RolledBack: they are bad.
        """
        measured = begun.pending.read()
        if trouble := self.monitor.divergence(measured.loss, measured.grad_norm):
            self._recover(trouble, begun.step, self._where(begun.batch) if not late else LATE)
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
        self._log({**self._record(begun, measured), "seconds": round(self.seconds, 3)}, None)
        return measured.stop

    def _leave(self) -> NoReturn:
        self.writer.wait()
        raise Interrupted(
            f"stopped after step {self.step}, everything is saved; continue with: {self._resume_command()}"
        )

    def _record(self, begun: _Underway, measured: StepResult) -> dict[str, Any]:
        """Count a step; its line of metrics.jsonl, without what an evaluation adds."""
        now = time.perf_counter()
        speed = measured.targets / (now - max(begun.started, self._read_at))
        self._read_at = now
        self.tokens += measured.targets
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
        best = None if self.best is None else Metrics.from_dict(self.best["metrics"])[score.metric].value
        if not score.is_better(measured[score.metric].value, best):
            return False
        self.best = {"step": self.step, "metrics": measured.to_dict(), "train": train.to_dict()}
        return True

    def _activations(self) -> dict[str, dict[str, float]]:
        """Statistics of the taps that `settings.watch` names, on some held-out data."""
        if not self.settings.watch:
            return {}
        device = self.train_step.device
        batch = tuple(part.to(device) for part in self.task.example_batch(self.model))
        return activations_during(self.model, lambda: self.task.rows(self.model, batch), self.settings.watch)

    def _sample(self) -> dict[str, Any]:
        """A line of samples.jsonl: what the task draws, as text and as figures."""
        self.model.eval()
        with torch.inference_mode():
            figures = self.task.sample(self.model, self.step)
        self.model.train()
        notes = [figure.text for figure in figures if isinstance(figure, Note)]
        if len(notes) == len(figures):
            return {"step": self.step, "text": "\n\n".join(notes)}
        from glassformer.figures import to_json, to_text  # rich is loaded for them alone

        return {"step": self.step, "text": to_text(figures), "figures": to_json(figures)}

    def _log(self, record: dict[str, Any], sample: dict[str, Any] | None) -> None:
        self._append(self.run.metrics, record)
        for callback in self.callbacks:
            callback.on_step(record)
        if sample is not None:
            self._append(self.run.samples, sample)
            for callback in self.callbacks:
                callback.on_sample(self.step, sample["text"])

    def _diagnose(
        self, parameters: dict[str, Any], activations: dict[str, dict[str, float]], evaluation: dict[str, Any]
    ) -> None:
        record: dict[str, Any] = {"step": self.step, "parameters": parameters}
        if activations:
            record["activations"] = activations
        self._append(self.run.diagnostics, record)
        for callback in self.callbacks:
            callback.on_diagnostics(record)
        silent = {name: seen["silent"] for name, seen in activations.items() if "silent" in seen}
        score = self.task.score
        values = evaluation[score.train_name], evaluation[score.name]
        for text in self.monitor.warnings(self.step, *values, parameters, silent):
            self.event("warning", text)

    def event(self, kind: str, text: str) -> None:
        """Report something that a person should know, and keep it in events.jsonl (which a resume does not cut)."""
        record = {"step": self.step, "seconds": round(self.seconds, 3), "kind": kind, "text": text}
        self._append(self.run.events, record)
        for callback in self.callbacks:
            callback.on_event(record)

    def _append(self, file: Any, record: dict[str, Any]) -> None:
        if self.world.is_main:
            self.run.append(file, record)

    def _recover(self, trouble: str, step: int, where: str) -> NoReturn:
        """A divergence in a step: report and stop, or return to the last checkpoint and continue differently."""
        report = f"training diverged at step {step}: {trouble}{self._history()}, {where}"
        self.train_step.clear()
        self.writer.wait()
        checkpoints = checkpoint_folders(self.run)
        if self.settings.on_divergence == "stop" or self.monitor.recoveries == MAX_RECOVERIES:
            kept = f"{self.run.path} keeps {checkpoints[-1].name}" if checkpoints else "no checkpoint was due yet"
            self.event("diverged", report)
            tried = f" after {MAX_RECOVERIES} recoveries" if self.monitor.recoveries else ""
            raise DivergenceError(
                f"{report}; {kept}{tried}; try half the learning rate (training.learning_rate), more warm-up, "
                "training.grad_clip=1, or training.on_divergence=skip to leave out such a batch"
            )
        self.monitor.recoveries += 1
        if self.settings.on_divergence == "skip":
            self.skipped.append(step - 1)
            recovery = f"the batch of step {step} is left out"
        else:
            self.rate /= 2
            recovery = f"the learning rate is {self.rate:g} times what it was"
        self.world.barrier()
        folder, _ = latest_checkpoint(self.run)
        assert folder is not None  # one is written before the first step
        rate, skipped, best, seconds = self.rate, self.skipped, self.best, self.seconds
        self.restore(load_checkpoint(folder, self.model, self.optimizer, self.world))
        self.rate, self.skipped, self.best, self.seconds = rate, skipped, best, seconds
        self.event("rolled back", f"{report}; back to {folder.name}, {recovery}")
        raise _RolledBack

    def _history(self) -> str:
        norms = " ".join(f"{norm:.3g}" for norm in self.monitor.norms)
        return f" (gradient norms before it: {norms})" if norms else ""

    def _where(self, batch: Batch) -> str:
        if self.train_step.sharded:
            return "first bad number not looked for in a sharded model"
        rows = self.train_step.micro_batch_size or len(batch[0])
        pieces = zip(*(part.to(self.train_step.device).split(rows) for part in batch), strict=True)
        runs = (partial(self.task.loss, self.model, piece) for piece in pieces)
        return f"first bad number in {first_non_finite(self.model, runs)}"

    def _state(self) -> dict[str, Any]:
        """Everything that `resume` needs, but weights, optimizer and generators, which the writer adds."""
        return {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "best": self.best,
            "batches": self.batches.state_dict(),
            "monitor": self.monitor.state_dict(),
            "rate": self.rate,
            "skipped": self.skipped,
        }

    def checkpoint(self) -> None:
        """Write everything that `resume` needs; it is on its way to the disk when this returns."""
        self._catch_up()
        self.writer.write(self.step, best=False, state=self._state())

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint; weights, optimizer and generators are `load_checkpoint`'s."""
        self._ahead = None
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.best = state["best"]
        if self.best and not math.isfinite(self.best["metrics"][self.task.score.metric][0]):
            self.best = None  # an older version kept a NaN as the best
        self.rate, self.skipped = state["rate"], list(state["skipped"])
        self.monitor.load_state_dict(state["monitor"])
        self.batches.load_state_dict(state["batches"])
        if self.world.is_main:
            self.run.cut(state["logs"])

    def _next_step(self) -> str:
        checkpoints = checkpoint_folders(self.run)
        if not checkpoints:
            return f"no checkpoint yet, start again with: {self._resume_command()}"
        return f"{checkpoints[-1].name} is kept, continue with: {self._resume_command()}"

    def _resume_command(self) -> str:
        local = self.world.local_size
        start = f"torchrun --nproc-per-node {local} -m " if self.world.size > 1 else ""
        return f"{start}glassformer resume {self.run.path}"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
