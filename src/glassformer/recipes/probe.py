"""How long a step, an evaluation and a sample take here, from a few seconds of work with a scratch model.

Random generators stand afterwards as before.
"""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import torch

from glassformer.evaluation.rows import evaluate_rows
from glassformer.generation import Engine, Request, Sampling
from glassformer.models import Decoder, ModelConfig, flops_per_token
from glassformer.recipes.machine import Machine
from glassformer.recipes.memory import libraries_bytes
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.trainer import build_train_step
from glassformer.tasks import Task
from glassformer.tasks.held_out import EVAL_WINDOW, windows_at_once
from glassformer.training.devices import peak_flops

SECONDS = 5.0  # what a probe may take
LEAST_STEPS = 3


class Probe(NamedTuple):
    """What was timed, in seconds.

    step: one step of the whole batch on one device, on average. first: what the first step took longer. steps: how many
    were timed, in `took` seconds. scaled: whether fewer sequences than a step's were timed; the rest is proportion.
    """

    step: float
    first: float
    evaluation_token: float
    sample_token: float
    steps: int
    took: float
    scaled: bool


def probe(task: Task, config: ModelConfig, t: ResolvedTraining, machine: Machine, seconds: float = SECONDS) -> Probe:
    """Time this model on one device for about `seconds`. Without a tokenizer no sample is timed.

    Args:
        config: as trained.
    """
    started = time.perf_counter()
    with no_traces(machine):
        stepper = Stepper(task, config, t, machine, sequences_in(seconds, config, t, machine))
        # the mean, since on a busy machine some steps wait, and the run will have to wait as often
        step = stepper.time(0.7 * seconds, LEAST_STEPS, statistics.fmean)
        evaluation = _evaluation_token(task, stepper.model, 0.15 * seconds)
        sample = 0.0 if task.source is None else _sample_token(task, stepper.model, 0.15 * seconds)
    return Probe(
        step=step,
        first=stepper.first,
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
    """A scratch model that learns a task on random ids, a step at a time.

    sequences: of a step; with fewer than `t.batch_size` the gradient's time grows in proportion, the optimizer's not.
    """

    def __init__(
        self,
        task: Task,
        config: ModelConfig,
        t: ResolvedTraining,
        machine: Machine,
        sequences: int,
        *,
        compiling: bool = False,
    ):
        libraries_bytes()  # measured once in a process, before this model leaves traces
        self.device, self.sequences, self.scale = machine.device, sequences, t.batch_size / sequences
        self.done, self.first = 0, 0.0
        self.model = Decoder(config, **t.dropouts).to(self.device).train()
        micro = min(t.micro_batch_size, sequences)
        t = t.model_copy(update={"learning_rate": 1e-9, "matrix_learning_rate": 1e-9, "micro_batch_size": micro})
        self.train_step = build_train_step(self.model, task, t, machine.model_copy(update={"compile": compiling}))
        self.batch = _random_batch(task, config, sequences, config.block_size, self.device)

    def time(self, seconds: float, least: int, average: Callable[[list[float]], float] = statistics.median) -> float:
        """Average seconds of a step of the whole batch. The first step warms up (`first`), and counts only when there
        is no time for a second."""
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
        gradient, update = (average(times[1:] or times) for times in (gradients, updates))
        self.done = len(gradients) - 1 or 1
        self.first = max(0.0, gradients[0] + updates[0] - gradient - update)
        return gradient * self.scale + update

    def _wait(self) -> None:
        if self.device.startswith("cuda"):
            torch.cuda.synchronize()


def sequences_in(seconds: float, config: ModelConfig, t: ResolvedTraining, machine: Machine) -> int:
    """How many of a step's sequences to time: all, or one micro-batch or less where, by arithmetic, a step would
    take more than a fifth of the time."""
    per_second = 0.5 * peak_flops(machine.device, machine.precision) / flops_per_token(config).training
    possible = max(1, int(seconds / 5 * per_second / config.block_size))
    return t.batch_size if possible >= t.batch_size else min(t.micro_batch_size, possible)


def _random_batch(task: Task, config: ModelConfig, B: int, T: int, device: str) -> tuple[torch.Tensor, ...]:
    ids = torch.randint(config.vocab_size, (B, T + 1)).numpy()
    return tuple(part.to(device) for part in task.collate(list(ids), None))


def _evaluation_token(task: Task, model: Decoder, seconds: float) -> float:
    """Seconds of one target in an evaluation, with the text cut as in a run, or in a piece of that."""
    config, device = model.config, str(next(model.parameters()).device)
    T = min(config.block_size, EVAL_WINDOW)
    per_second = 0.5 * peak_flops(device, "fp32") / flops_per_token(config, T).forward
    B = max(1, min(windows_at_once(config, device, T), int(seconds * per_second) // T))
    batch = _random_batch(task, config, B, T, device)
    times = []
    for _ in range(2):
        started = time.perf_counter()
        evaluate_rows(model, task.rows, [batch])
        times.append(time.perf_counter() - started)
    return min(times) / (B * T)


def _sample_token(task: Task, model: Decoder, seconds: float) -> float:
    """Seconds of one more token of a sample."""
    engine = Engine(model.eval(), task.tokenizer, max_rows=1)
    engine.submit(Request((0,), max_new_tokens=10, sampling=Sampling(temperature=0.8), end_tokens=frozenset()))
    engine.step()  # the prompt
    started, n = time.perf_counter(), 0
    while engine.busy and (n == 0 or time.perf_counter() < started + seconds):
        engine.step()
        n += 1
    return (time.perf_counter() - started) / max(1, n)
