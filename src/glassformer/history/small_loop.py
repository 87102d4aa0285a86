"""A training loop that fits on a screen: for experiments whose runs last a minute and are kept as a few numbers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.tasks import Task
from glassformer.training import LossModule, Schedule, TrainStep, build_optimizer

WARMUP = 0.05  # of the steps


class Stop(NamedTuple):
    """Where a run has come to. targets: how many it has learned from. seconds: see `stopwatch`. loss: of training
    since the stop before, in nats a target."""

    step: int
    targets: int
    seconds: float
    loss: float


def stopwatch(device: str) -> Callable[[], float]:
    """A clock for comparisons: on a CPU the time that the processor spent on this process, all threads together, so
    that neighbours on a crowded machine do not count; on a GPU the time by the clock."""
    if device.startswith("cuda"):

        def seconds() -> float:
            torch.cuda.synchronize(device)
            return time.perf_counter()

        return seconds
    return time.process_time


def training(
    model: nn.Module,
    task: Task,
    batches: Iterator[Any],
    *,
    steps: int,
    learning_rate: float,
    stops: list[int],
) -> Iterator[Stop]:
    """Train with AdamW (a short way up, a straight way down, gradients clipped at 1) and yield after each step of
    `stops`. The time that the caller takes is not counted. The model is left in training mode."""
    optimizer = build_optimizer(
        "adamw",
        model,
        learning_rate=learning_rate,
        matrix_learning_rate=learning_rate,
        betas=(0.9, 0.98),
        weight_decay=0.01,
    )
    train_step = TrainStep(LossModule(model, task.loss), optimizer, grad_clip=1.0)
    schedule = Schedule("linear", steps, warmup_steps=int(WARMUP * steps), final_fraction=0.02)
    clock = stopwatch(train_step.device.type)
    targets, seconds, started = 0, 0.0, clock()
    since: list[tuple[float, int]] = []  # what each step since the last stop cost, and its targets
    model.train()
    for step in range(steps):
        measured = train_step.forward_backward(next(batches)).read()
        train_step.optimizer_step(measured, schedule(step))
        train_step.clear()
        targets += measured.targets
        since.append((measured.loss * measured.targets, measured.targets))
        if step + 1 in stops:
            seconds += clock() - started
            yield Stop(step + 1, targets, seconds, sum(loss for loss, _ in since) / sum(n for _, n in since))
            model.train()
            since, started = [], clock()


def fresh_models(
    shapes: Mapping[str, Mapping[str, Any]], build: Callable[..., Any], *, seed: int, device: str
) -> Iterator[tuple[str, Any, float]]:
    """(kind, model, learning rate) of each shape; the weights of every model are drawn from the same seed."""
    for kind, shape in shapes.items():
        torch.manual_seed(seed)
        fields = {name: value for name, value in shape.items() if name != "learning_rate"}
        yield kind, build(kind, **fields).to(device), shape["learning_rate"]


def check_kinds(kinds: Iterable[str], known: Iterable[str]) -> None:
    """Raise a `UsageError` for a kind of model that is not in the experiment."""
    for kind in kinds:
        if kind not in known:
            raise UsageError(f"{kind!r} takes no part in this comparison; {did_you_mean(kind, known)}")


def halvings(steps: int, n: int) -> list[int]:
    """The last step, half of it, a quarter ...: at most n, ascending.

    >>> halvings(400, 4)
    [50, 100, 200, 400]
    """
    return sorted({max(1, steps >> i) for i in range(n)})
