"""How long things take here, found out by doing them for a few seconds with a scratch model that is then forgotten.

Timed are the loop's own step (forward, backward, clip, optimizer) on random ids, a piece of an evaluation, and a few
tokens of a sample. Random generators stand afterwards as before.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from glassformer.generation import Engine, Request, Sampling
from glassformer.models import Decoder, ModelConfig, flops_per_token
from glassformer.processors.tokenizers import Tokenizer
from glassformer.recipes.machine import Machine
from glassformer.recipes.memory import libraries_bytes
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.tasks import TASKS, evaluate_loss
from glassformer.tasks.held_out import EVAL_WINDOW, windows_at_once
from glassformer.training import LossModule, TrainStep, build_optimizer
from glassformer.training.compiling import compiled
from glassformer.training.devices import peak_flops

SECONDS = 5.0  # what a probe may take
LEAST_STEPS = 3


@dataclass(frozen=True)
class Probe:
    """What was timed, in seconds."""

    step: float
    """one step of the whole batch on one device, on average"""
    first: float
    """what the first step took longer than that"""
    evaluation_token: float
    sample_token: float
    steps: int
    """how many were timed"""
    took: float
    scaled: bool
    """whether fewer sequences than a step's were timed, because all would take too long; the rest is proportion"""


def probe(
    config: ModelConfig,
    t: ResolvedTraining,
    machine: Machine,
    *,
    seconds: float = SECONDS,
    tokenizer: Tokenizer | None = None,
) -> Probe:
    """Time steps of this model on one device for about `seconds` at most. Without a tokenizer the sample's share of the
    model alone is timed."""
    started = time.perf_counter()
    with no_traces(machine):
        stepper = Stepper(config, t, machine, sequences=sequences_in(seconds, config, t, machine))
        # the mean, since on a busy machine some steps wait, and the run will have to wait as often
        step = stepper.time(0.7 * seconds, LEAST_STEPS, statistics.fmean)
        evaluation = _evaluation_token(stepper.model, 0.15 * seconds)
        sample = _sample_token(stepper.model, tokenizer, 0.15 * seconds)
    return Probe(
        step=stepper.whole(step),
        first=max(0.0, stepper.first - sum(step)),
        evaluation_token=evaluation,
        sample_token=sample,
        steps=stepper.done,
        took=time.perf_counter() - started,
        scaled=stepper.sequences < t.batch_size,
    )


def no_traces(machine: Machine) -> contextlib.AbstractContextManager[None]:
    """The random generators stand afterwards as before."""
    return torch.random.fork_rng(devices=[machine.device] if machine.device.startswith("cuda") else [])


class Stepper:
    """A scratch model that is trained on random ids, a step at a time.

    sequences: of a step; with fewer than `t.batch_size` the gradient's time grows in proportion, the optimizer's not.
    """

    def __init__(
        self, config: ModelConfig, t: ResolvedTraining, machine: Machine, *, sequences: int, fast: bool = False
    ):
        libraries_bytes()  # measured once in a process, before this model leaves traces
        self.device, self.batch_size, self.sequences, self.done = machine.device, t.batch_size, sequences, 0
        self.model = Decoder(config, **t.dropouts).to(self.device).train()
        loss: torch.nn.Module = LossModule(self.model, TASKS["next_token"]().loss)
        self.train_step = TrainStep(
            compiled(loss, self.device) if fast else loss,
            build_optimizer(
                t.optimizer,
                self.model,
                learning_rate=1e-9,
                matrix_learning_rate=1e-9,
                betas=(t.beta1, t.beta2),
                weight_decay=0.0,
            ),
            micro_batch_size=min(t.micro_batch_size, sequences),
            grad_clip=t.grad_clip,
            precision=machine.precision,
        )
        ids = torch.randint(config.vocab_size, (sequences, config.block_size + 1), device=self.device)
        self.batch = (ids[:, :-1].contiguous(), ids[:, 1:].contiguous())

    def time(
        self, seconds: float, least: int, average: Callable[[list[float]], float] = statistics.median
    ) -> tuple[float, float]:
        """Average seconds (of the batch's gradient, of the update). The first step warms up (`first`), and counts only
        when there is no time for a second."""
        gradients: list[float] = []
        updates: list[float] = []
        until = time.perf_counter() + seconds
        while len(gradients) <= least or time.perf_counter() < until:
            started = time.perf_counter()
            result = self.train_step.forward_backward(self.batch).read()
            self._wait()
            between = time.perf_counter()
            self.train_step.optimizer_step(result, 1.0)
            self.train_step.clear()
            self._wait()
            gradients.append(between - started)
            updates.append(time.perf_counter() - between)
            if time.perf_counter() > until and len(gradients) >= 2:
                break
        self.done, self.first = len(gradients) - 1 or 1, gradients[0] + updates[0]
        return average(gradients[1:] or gradients), average(updates[1:] or updates)

    def whole(self, step: tuple[float, float]) -> float:
        """Seconds of a step of the whole batch."""
        return step[0] * self.batch_size / self.sequences + step[1]

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def sequences_in(seconds: float, config: ModelConfig, t: ResolvedTraining, machine: Machine) -> int:
    """How many of a step's sequences to time: all, or one micro-batch or less where, by arithmetic, a step would
    take more than a fifth of the time."""
    per_second = 0.5 * peak_flops(machine.device, machine.precision) / flops_per_token(config).training
    possible = max(1, int(seconds / 5 * per_second / config.block_size))
    return t.batch_size if possible >= t.batch_size else min(t.micro_batch_size, possible)


def _evaluation_token(model: Decoder, seconds: float) -> float:
    """Seconds of one target in an evaluation, with the text cut as in a run, or in a piece of that."""
    config, device = model.config, next(model.parameters()).device
    T = min(config.block_size, EVAL_WINDOW)
    per_second = 0.5 * peak_flops(str(device), "fp32") / flops_per_token(config, T).forward
    B = max(1, min(windows_at_once(config, device.type, T), int(seconds * per_second) // T))
    ids = torch.randint(config.vocab_size, (B, T), device=device)
    return _quickest(lambda: evaluate_loss(model, [(ids, ids)])) / (B * T)


def _sample_token(model: Decoder, tokenizer: Tokenizer | None, seconds: float) -> float:
    """Seconds of one more token of a sample; without a tokenizer those of the model alone."""
    model.eval()
    if tokenizer is None:
        return _forward_token(model)
    engine = Engine(model, tokenizer, max_rows=1)
    engine.submit(Request((0,), max_new_tokens=10, sampling=Sampling(temperature=0.8), end_tokens=frozenset()))
    engine.step()  # the prompt
    started, n = time.perf_counter(), 0
    while engine.busy and (n == 0 or time.perf_counter() < started + seconds):
        engine.step()
        n += 1
    return (time.perf_counter() - started) / max(1, n)


@torch.inference_mode()
def _forward_token(model: Decoder) -> float:
    """Seconds of the model for one more token, with half a context cached."""
    cache, half = model.new_cache(1), max(1, model.config.block_size // 2)
    device = next(model.parameters()).device
    model(torch.zeros(1, half, dtype=torch.int64, device=device), cache=cache)

    def one() -> None:
        model(torch.zeros(1, 1, dtype=torch.int64, device=device), cache=cache)
        cache.rewind(half)

    return _quickest(one, 5) if model.config.block_size > half else 0.0


def _quickest(what: Callable[[], object], times: int = 2) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        what()
        best = min(best, time.perf_counter() - started)
    return best
