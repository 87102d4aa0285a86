"""The loop: take batches, ask the objective, step the optimizer, look, keep. It knows no particular model or data."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch

from glassformer.errors import DivergenceError, GlassformerError, RunError
from glassformer.evaluation import LossEstimate
from glassformer.interchange import save
from glassformer.models import Decoder
from glassformer.objectives import NextToken
from glassformer.tokenizers import Tokenizer
from glassformer.training.checkpoints import save_checkpoint
from glassformer.training.non_finite import first_non_finite
from glassformer.training.optimizers import Optimizer
from glassformer.training.precision import autocast
from glassformer.training.run_folder import RunFolder
from glassformer.training.schedules import Schedule


class Batches(Protocol):
    """Where (inputs, targets) come from; its position is part of a checkpoint."""

    def __next__(self) -> tuple[torch.Tensor, torch.Tensor]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


class Listener:
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
    micro_batch_size: how many of a step's sequences go through the model at once (None: all); the gradients add up.
    whole_split: whether evaluations read the whole validation split, or a part of it."""

    steps: int
    micro_batch_size: int | None = None
    grad_clip: float = 1.0
    eval_every: int = 250
    sample_every: int = 0
    checkpoint_every: int = 0
    keep_checkpoints: int = 3
    precision: str = "fp32"
    whole_split: bool = True


class Trainer:
    """One run in memory.

    Args:
        evaluate: gives the validation loss of the model as it is. sample: writes a text with the model as it is.
        forward: what the objective calls; the model itself, or its compiled form.
    """

    def __init__(
        self,
        *,
        model: Decoder,
        tokenizer: Tokenizer,
        objective: NextToken,
        batches: Batches,
        optimizer: Optimizer,
        schedule: Schedule,
        settings: TrainingSettings,
        run: RunFolder,
        evaluate: Callable[[], LossEstimate],
        sample: Callable[[], str],
        forward: Callable[..., torch.Tensor] | None = None,
        listeners: tuple[Listener, ...] = (),
    ):
        self.model, self.tokenizer, self.objective, self.batches = model, tokenizer, objective, batches
        self.optimizer, self.schedule, self.settings, self.run = optimizer, schedule, settings, run
        self.evaluate, self.sample, self.listeners = evaluate, sample, listeners
        self.forward = model if forward is None else forward  # a compiled model has no truth value
        self.device = next(model.parameters()).device
        self.parameters = list(model.parameters())
        self.step = 0  # updates done
        self.tokens = 0
        self.seconds = 0.0  # time in the loop, over all sittings
        self.best: dict[str, Any] | None = None  # the evaluation that model/ was kept at
        self.last_evaluation: LossEstimate | None = None

    def train(self) -> None:
        """Go on until `settings.steps` updates are done.

        Raises:
            Interrupted: after Ctrl-C, with a checkpoint written.
            DivergenceError: the loss or a gradient is not a number.
            RunError: the disk is full; the message says from which checkpoint one can go on.
        """
        for listener in self.listeners:
            listener.on_start(self)
        self.model.train()
        try:
            with _polite_interrupts() as interrupted:
                while self.step < self.settings.steps:
                    self._one_step(interrupted)
        except KeyboardInterrupt:
            raise Interrupted(f"stopped at once in step {self.step + 1}; {self._way_on()}") from None
        except GlassformerError as error:
            if type(error) is not GlassformerError:
                raise
            raise RunError(f"{error}; {self._way_on()}") from error  # the disk is full
        finally:
            for listener in self.listeners:
                listener.on_end()

    def _one_step(self, interrupted: threading.Event) -> None:
        s, started = self.settings, time.perf_counter()
        factor = self.schedule(self.step)
        batches = self._micro_batches()
        loss, count, grad_norm = self._update(batches, factor)
        self.step += 1
        self.tokens += count
        elapsed = time.perf_counter() - started
        last = self.step == s.steps
        record: dict[str, Any] = {
            "step": self.step,
            "tokens": self.tokens,
            "seconds": 0.0,
            "loss": loss,
            "lr": self.optimizer.learning_rate * factor,
            "grad_norm": grad_norm,
            "tokens_per_second": round(count / elapsed),
        }
        if last or _due(self.step, s.eval_every):
            record |= self._evaluate()
        sampled = self.sample() if _due(self.step, s.sample_every) else None
        self.seconds += time.perf_counter() - started
        record["seconds"] = round(self.seconds, 3)
        self.run.append(self.run.metrics, record)
        for listener in self.listeners:
            listener.on_step(record)
        if sampled is not None:
            self.run.append(self.run.samples, {"step": self.step, "text": sampled})
            for listener in self.listeners:
                listener.on_sample(self.step, sampled)
        if last or interrupted.is_set() or _due(self.step, s.checkpoint_every):
            self.checkpoint()
        if interrupted.is_set() and not last:
            raise Interrupted(
                f"stopped after step {self.step}, everything is saved; go on with: glassformer resume {self.run.path}"
            )

    def _micro_batches(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """The sequences of one step, cut into what fits through the model at once."""
        inputs_BT, targets_BT = (ids.to(self.device, non_blocking=True) for ids in next(self.batches))
        n = self.settings.micro_batch_size or len(inputs_BT)
        return list(zip(inputs_BT.split(n), targets_BT.split(n), strict=True))

    def _update(self, batches: list[tuple[torch.Tensor, torch.Tensor]], factor: float) -> tuple[float, int, float]:
        """One optimizer step over all micro-batches: the gradient of (sum of losses) / (count over the whole step)."""
        total, count = 0.0, 0
        for batch in batches:
            with autocast(self.settings.precision, self.device.type):
                loss_sum, n, _ = self.objective.loss(self.forward, batch)  # type: ignore[arg-type]
            loss_sum.backward()
            total += float(loss_sum.detach())
            count += n
        loss = total / count
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = float(torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))) / count
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise DivergenceError(self._divergence(loss, norm, batches[-1]))
        clip = self.settings.grad_clip
        torch._foreach_mul_(gradients, (clip / norm if 0 < clip < norm else 1.0) / count)
        self.optimizer.step(factor)
        for p in self.parameters:
            p.grad = None
        return loss, count, norm

    def _evaluate(self) -> dict[str, float | None]:
        """Validation loss of the weights as they are; the best so far are kept in `model/`."""
        estimate = self.last_evaluation = self.evaluate()
        if self.best is None or estimate.loss < self.best["estimate"]["loss"]:
            save(self.run.model, self.model, self.tokenizer)
            self.best = {"step": self.step, "estimate": asdict(estimate)}
        return {"val_loss": estimate.loss, "val_bits_per_byte": estimate.bits_per_byte}

    def checkpoint(self) -> None:
        """Write everything that `resume` needs."""
        state = {
            "tokens": self.tokens,
            "seconds": self.seconds,
            "best": self.best,
            "batches": self.batches.state_dict(),
        }
        save_checkpoint(
            self.run, self.step, self.model, self.tokenizer, self.optimizer, state, keep=self.settings.keep_checkpoints
        )

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `checkpoint` told; weights, optimizer and generators are `load_checkpoint`'s."""
        self.step, self.tokens, self.seconds, self.best = (
            state["step"],
            state["tokens"],
            state["seconds"],
            state["best"],
        )
        self.batches.load_state_dict(state["batches"])
        self.run.cut(state["logs"])

    def _way_on(self) -> str:
        checkpoints = sorted(self.run.checkpoints.glob("step-*"))
        if not checkpoints:
            return f"there is no checkpoint yet: start again, and delete {self.run.path}"
        return f"{checkpoints[-1].name} is kept, go on with: glassformer resume {self.run.path}"

    def _divergence(self, loss: float, norm: float, batch: tuple[torch.Tensor, torch.Tensor]) -> str:
        where = first_non_finite(self.model, batch[0])
        checkpoints = sorted(self.run.checkpoints.glob("step-*"))
        kept = f"{self.run.path} keeps {checkpoints[-1].name}" if checkpoints else "no checkpoint was due yet"
        return (
            f"training diverged at step {self.step + 1}: loss {loss:.4g}, gradient norm {norm:.4g}, "
            f"first bad number in {where}; {kept}; "
            "try half the learning rate (training.learning_rate), more warm-up or training.grad_clip=1"
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


@contextlib.contextmanager
def _polite_interrupts() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM sets the event, and the loop ends at the next safe place; the second ends at once."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def note(signum: int, frame: Any) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
