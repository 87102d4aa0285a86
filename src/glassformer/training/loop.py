"""The loop: take batches, ask the objective, step the optimizer, look, keep. It knows no particular model or data."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol

from glassformer.errors import DivergenceError, GlassformerError, LostProcessError, RunError
from glassformer.evaluation.loss import LossEstimate, WindowLosses
from glassformer.processors.tokenizers import Tokenizer
from glassformer.renamed import old_arguments
from glassformer.tasks import Objective
from glassformer.training.checkpoints import CheckpointWriter, checkpoint_folders, latest_checkpoint, load_checkpoint
from glassformer.training.diagnostics import StepDiagnostics
from glassformer.training.interrupts import polite_interrupts
from glassformer.training.monitor import MAX_RECOVERIES, DivergenceMonitor
from glassformer.training.non_finite import first_non_finite
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import finite_number
from glassformer.training.schedules import Extended, Schedule
from glassformer.training.step import Batch, PendingResult, StepResult, TrainStep

LATE = "noticed one step late (training.lag_steps=1), so the weights at hand hold it"


class Batches(Protocol):
    """Where batches come from: tensors with one row a sequence; its position is part of a checkpoint."""

    def __next__(self) -> Batch: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Evaluated(NamedTuple):
    """The validation loss of a model as it is, window by window or example by example. bytes_per_token: of the text,
    where there is one. accuracy: share of targets that the model held the most likely, where somebody counted."""

    windows: WindowLosses
    bytes_per_token: float | None = None
    accuracy: float | None = None

    def estimate(self) -> LossEstimate:
        """All of it in numbers."""
        return replace(self.windows.estimate(self.bytes_per_token), accuracy=self.accuracy)


class Callback:
    """Somebody who watches a run. Every method may be left as it is."""

    def on_start(self, trainer: Trainer) -> None:
        """Before the first step, also of a resumed run."""

    def on_step(self, record: dict[str, Any]) -> None:
        """After each step, with its line of metrics.jsonl."""

    def on_sample(self, step: int, text: str) -> None:
        """When the model wrote something."""

    def on_diagnostics(self, record: dict[str, Any]) -> None:
        """At evaluations, with its line of diagnostics.jsonl: gradient and update of every parameter."""

    def on_event(self, record: dict[str, Any]) -> None:
        """When something happened that a person should know, with its line of events.jsonl."""

    def on_end(self) -> None:
        """When the loop is left, well or not."""


class Interrupted(GlassformerError):
    """Somebody pressed Ctrl-C (or sent SIGTERM): no mistake. The message says what is saved and how to go on."""

    prefix = ""


@dataclass(frozen=True)
class TrainingSettings:
    """How long, how often, how careful. `*_every` are steps, 0 is never (the last step always evaluates and saves).
    whole_split: whether evaluations read the whole validation split, or a part of it.
    lag: read the numbers of a step while the next one is under way, so that a GPU never waits for them. A step is
    logged, and a divergence noticed, one step late; steps that evaluate, sample or save are read at once.
    on_divergence: what to do about a NaN or a loss that jumped and stays up. `stop` with a report; or go back to the
    last checkpoint and leave out the batch (`skip`) or halve the learning rate (`lower`)."""

    steps: int
    eval_every: int = 250
    sample_every: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 3
    whole_split: bool = True
    lag: bool = False
    on_divergence: str = "stop"


class _Underway(NamedTuple):
    """A step, by its number from 1 on, that is begun; its numbers are not read yet."""

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
        objective: what is asked of the model.
        train_step: the gradient and the optimizer's step, on this process's share of the batch.
        n_answers: between how many answers the model chooses: a blind guess costs the logarithm.
        kept_with_it: what `hub.save` keeps with the model beside the tokenizer.
        evaluate: measures the model as it is on held-out data. evaluate_train: the same way on a part of the training
            data, so that the two losses can be compared (the loss of a step is measured with dropout, on the way).
        sample: writes a text with the model as it is.
        look: statistics of activations for diagnostics.jsonl, by tap name.
        operations, peak: floating-point operations of a token, and those a second that this machine can do, for the
            utilisation; without a peak it is not told.
    """

    @old_arguments(listeners="callbacks", update="train_step")
    def __init__(
        self,
        *,
        model: Any,
        tokenizer: Tokenizer,
        objective: Objective,
        train_step: TrainStep,
        batches: Batches,
        schedule: Schedule | Extended,
        settings: TrainingSettings,
        run: RunFolder,
        evaluate: Callable[[], Evaluated],
        evaluate_train: Callable[[], Evaluated],
        sample: Callable[[], str],
        look: Callable[[], dict[str, dict[str, float]]] = dict,
        operations: float = 0.0,
        peak: float | None = None,
        callbacks: tuple[Callback, ...] = (),
        n_answers: int | None = None,
        kept_with_it: Mapping[str, Any] | None = None,
    ):
        self.n_answers = n_answers or model.config.vocab_size
        self.model, self.tokenizer, self.objective = model, tokenizer, objective
        self.train_step, self.batches = train_step, batches
        self.schedule, self.settings, self.run, self.world = schedule, settings, run, train_step.world
        self.evaluate, self.evaluate_train = evaluate, evaluate_train
        self.sample, self.look, self.callbacks = sample, look, callbacks
        self.operations, self.peak = operations, peak
        self.optimizer = train_step.optimizer
        self.writer = CheckpointWriter(
            run,
            model,
            tokenizer,
            train_step.optimizer,
            self.world,
            keep=settings.keep_checkpoints,
            kept_with_it=kept_with_it or {},
        )
        self.monitor = DivergenceMonitor(getattr(objective, "alarm", None))
        self.step = 0  # updates done
        self.tokens = 0
        self.seconds = 0.0  # time in the loop, over all sittings
        self.rate = 1.0  # factor on the learning rate that a recovery left
        self.skipped: list[int] = []  # steps whose first batch was left out
        self.best: dict[str, Any] | None = None  # the evaluation that model/ was kept at
        self.windows: WindowLosses | None = None  # of the last evaluation
        self._ahead: _Underway | None = None  # a step that is done but for reading its numbers
        self._read_at = 0.0  # when the last numbers were read

    def train(self) -> None:
        """Go on until `settings.steps` updates are done.

        Raises:
            Interrupted: after Ctrl-C, with a checkpoint written.
            DivergenceError: the loss or a gradient is not a number, or the loss jumped and stays up.
            RunError: the disk is full, or another process ended; the message says how one can go on.
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
            raise Interrupted(f"stopped at once in step {self.step + 1}; {self._way_on()}") from None
        except GlassformerError as error:
            if type(error) not in (GlassformerError, LostProcessError):
                raise
            kind = LostProcessError if isinstance(error, LostProcessError) else RunError  # else the disk is full
            raise kind(f"{error}; {self._way_on()}") from error
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
            looked = self.look()
            better = self._evaluate(record)
        sampled = self.sample() if sampling else None
        self.seconds += time.perf_counter() - begun.started
        record["seconds"] = round(self.seconds, 3)
        self._tell(record, sampled)
        if watched is not None:
            self._diagnose(parameters, looked, record)
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
        """Read and tell the numbers of the step before, if that is still to do; whether it was asked to stop."""
        begun, self._ahead = self._ahead, None
        if begun is None:
            return False
        measured = self._read(begun, late=True)
        self._tell({**self._record(begun, measured), "seconds": round(self.seconds, 3)}, None)
        return measured.stop

    def _leave(self) -> NoReturn:
        self.writer.wait()
        raise Interrupted(f"stopped after step {self.step}, everything is saved; go on with: {self._resume_command()}")

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
        """Training and validation loss of the weights as they are, into the record (None where one is no finite
        number); whether they are the best so far."""
        training = self.evaluate_train().estimate()
        record["train_loss_eval"], record["train_interval"] = (
            finite_number(training.loss),
            finite_number(training.interval),
        )
        measured = self.evaluate()
        self.windows, estimate = measured.windows, measured.estimate()
        record["val_loss"], record["val_bits_per_byte"] = (
            finite_number(estimate.loss),
            finite_number(estimate.bits_per_byte),
        )
        record["val_interval"] = finite_number(estimate.interval)
        if estimate.accuracy is not None:
            record["val_accuracy"] = estimate.accuracy
        if not math.isfinite(estimate.loss) or (self.best and estimate.loss >= self.best["estimate"]["loss"]):
            return False
        self.best = {"step": self.step, "estimate": asdict(estimate), "train": asdict(training)}
        return True

    def _tell(self, record: dict[str, Any], sampled: str | None) -> None:
        self._append(self.run.metrics, record)
        for callback in self.callbacks:
            callback.on_step(record)
        if sampled is not None:
            self._append(self.run.samples, {"step": self.step, "text": sampled})
            for callback in self.callbacks:
                callback.on_sample(self.step, sampled)

    def _diagnose(
        self, parameters: dict[str, Any], looked: dict[str, dict[str, float]], evaluation: dict[str, Any]
    ) -> None:
        record: dict[str, Any] = {"step": self.step, "parameters": parameters}
        if looked:
            record["activations"] = looked
        self._append(self.run.diagnostics, record)
        for callback in self.callbacks:
            callback.on_diagnostics(record)
        silent = {name: seen["silent"] for name, seen in looked.items() if "silent" in seen}
        losses = evaluation["train_loss_eval"], evaluation["val_loss"]
        for text in self.monitor.warnings(self.step, *losses, parameters, silent):
            self.event("warning", text)

    def event(self, kind: str, text: str) -> None:
        """Tell something that a person should know, and keep it in events.jsonl (which a resume does not cut)."""
        record = {"step": self.step, "seconds": round(self.seconds, 3), "kind": kind, "text": text}
        self._append(self.run.events, record)
        for callback in self.callbacks:
            callback.on_event(record)

    def _append(self, file: Any, record: dict[str, Any]) -> None:
        if self.world.is_main:
            self.run.append(file, record)

    def _recover(self, trouble: str, step: int, where: str) -> NoReturn:
        """A divergence in a step: report and stop, or go back to the last checkpoint and go on another way."""
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
                "training.grad_clip=1, or training.on_divergence=skip to go on by itself"
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
        runs = (partial(self.objective.loss, self.model, piece) for piece in pieces)
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
        """Take back what a checkpoint told; weights, optimizer and generators are `load_checkpoint`'s."""
        self._ahead = None
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.best = state["best"]
        if self.best and finite_number(self.best["estimate"]["loss"]) is None:  # an older version called a NaN the best
            self.best = None
        self.rate, self.skipped = state["rate"], list(state["skipped"])
        self.monitor.load_state_dict(state["monitor"])
        self.batches.load_state_dict(state["batches"])
        if self.world.is_main:
            self.run.cut(state["logs"])

    def _way_on(self) -> str:
        checkpoints = checkpoint_folders(self.run)
        if not checkpoints:
            return f"no checkpoint yet, start again with: {self._resume_command()}"
        return f"{checkpoints[-1].name} is kept, go on with: {self._resume_command()}"

    def _resume_command(self) -> str:
        local = self.world.local_size
        start = f"torchrun --nproc-per-node {local} -m " if self.world.size > 1 else ""
        return f"{start}glassformer resume {self.run.path}"


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
