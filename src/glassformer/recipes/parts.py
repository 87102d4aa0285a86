"""The parts of a run, each made from its section of the recipe."""

from __future__ import annotations

import contextlib
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glassformer import __version__
from glassformer.data import prefetched
from glassformer.errors import UsageError
from glassformer.models import Decoder, flops_per_token
from glassformer.recipes.derive import as_trained
from glassformer.recipes.schema import Recipe, TrainingSection
from glassformer.recipes.task import Task
from glassformer.tasks import OBJECTIVES
from glassformer.threads import how_threads_wait, set_threads, use_threads
from glassformer.training import (
    Callback,
    Extended,
    LossModule,
    RunFolder,
    Schedule,
    Trainer,
    TrainingSettings,
    TrainStep,
    World,
    build_optimizer,
    choose_device,
    choose_precision,
)
from glassformer.training.compiling import compiled
from glassformer.training.diagnostics import NEVER_NEGATIVE
from glassformer.training.loop import Evaluated
from glassformer.training.sharding import shard
from glassformer.training.utilisation import peak_flops


def build_trainer(
    r: Recipe,
    model: Any,
    task: Task,
    machine: dict[str, Any],
    path: Path,
    callbacks: tuple[Callback, ...],
    world: World,
    extended: Sequence[Mapping[str, int]] = (),
) -> Trainer:
    """Everything a run needs, put together; nothing is written yet. The model is spread over processes if asked.

    extended: where the run was given another length (`schedule_for`).
    """
    t, config = r.training, model.config
    assert t.steps and isinstance(t.batch_size, int) and t.micro_batch_size and t.learning_rate
    assert t.warmup_steps is not None
    batches = task.batches(config, world)

    def evaluate() -> Evaluated:
        return task.evaluate(model, whole=not t.eval_batches)

    def evaluate_train() -> Evaluated:
        return task.evaluate(model, whole=False, split="train")

    def sample() -> str:
        model.eval()
        text = task.sample(model, trainer.step)
        model.train()
        return text

    def look() -> dict[str, dict[str, float]]:
        if t.watch_activations:
            return task.activations(model, "*")
        never_negative = getattr(config, "activation", None) in NEVER_NEGATIVE
        return task.activations(model, "*.feedforward.hidden") if never_negative else {}

    decoder = isinstance(model, Decoder)
    beside = {"source_tokenizer": task.source_tokenizer, "labels": task.labels}
    kept = {name: thing for name, thing in beside.items() if thing}
    if t.sharding == "full":
        shard(model, precision=machine["precision"])
    optimizer = build_optimizer(
        t.optimizer,
        model,
        learning_rate=t.learning_rate,
        matrix_learning_rate=t.matrix_learning_rate,
        momentum=t.momentum,
        betas=(t.beta1, t.beta2),
        weight_decay=t.weight_decay,
        accumulator_start=t.accumulator_start,
        nesterov=t.nesterov,
    )
    objective = task.objective()
    loss: torch.nn.Module = LossModule(model, objective.loss)
    if machine["compile"]:
        loss = compiled(loss, machine["device"])
    trainer = Trainer(
        model=model,
        tokenizer=task.tokenizer,
        objective=objective,
        n_answers=task.n_answers,
        kept_with_it=kept,
        train_step=TrainStep(
            loss,
            optimizer,
            world=world,
            micro_batch_size=t.micro_batch_size,
            grad_clip=t.grad_clip,
            precision=machine["precision"],
        ),
        batches=prefetched(batches, machine["device"]),
        schedule=schedule_for(t, extended),
        settings=TrainingSettings(
            steps=t.steps,
            eval_every=t.eval_every or 0,
            sample_every=t.sample_every or 0,
            checkpoint_every=t.checkpoint_every or 0,
            keep_checkpoints=t.keep_checkpoints,
            whole_split=not t.eval_batches,
            lag=bool(t.lag_steps),
            on_divergence=t.on_divergence,
        ),
        run=RunFolder(path),
        evaluate=evaluate,
        evaluate_train=evaluate_train,
        sample=sample,
        look=look,
        operations=flops_per_token(as_trained(config, t)).training if decoder else 0.0,
        peak=peak_flops(machine["device"], machine["precision"]) * world.size if decoder else None,
        callbacks=callbacks,
    )
    return trainer


def schedule_for(t: TrainingSection, extended: Sequence[Mapping[str, int]]) -> Schedule | Extended:
    """The schedule of a run, which may have been given another length on the way.

    extended: of each time, `step` (updates done by then) and `steps` (how many had been planned), the first first.
    """
    assert t.steps and t.warmup_steps is not None
    lengths = [*(each["steps"] for each in extended), t.steps]
    parts = [Schedule(t.schedule, n, t.warmup_steps, t.final_lr_fraction, t.cooldown_fraction) for n in lengths]
    schedule: Schedule | Extended = parts[0]
    for each, after in zip(extended, parts[1:], strict=True):
        schedule = Extended(schedule, after, each["step"])
    return schedule


def detect_machine(r: Recipe) -> dict[str, Any]:
    """What is detected here, once."""
    device = choose_device(r.training.device)
    threads = set_threads()
    precision = choose_precision(r.training.precision, device)
    fixed = OBJECTIVES[r.task.kind].data == "text"  # examples come in all lengths, and each would be compiled by itself
    compiled = r.training.compile == "on" or (r.training.compile == "auto" and fixed and device.startswith("cuda"))
    if device.startswith("cuda"):
        torch.backends.cuda.matmul.allow_tf32 = True
    return {
        "device": device,
        "processor": processor(),
        "threads": threads,
        "waiting": how_threads_wait(),
        "precision": precision,
        "compile": compiled,
        "torch": torch.__version__,
        "glassformer": __version__,
        "python": sys.version.split()[0],
    }


def differences(machine: dict[str, Any], world: World) -> list[str]:
    """Set the threads that the run had, and tell in what this machine differs so that results may too, by rounding."""
    here = {"processor": processor(), "torch": torch.__version__}
    threads, wanted = set_threads(), machine["threads"]
    if threads >= wanted:
        use_threads(wanted)
    else:
        here["threads"] = str(threads)
    return [
        f"{name}: {machine.get(name, 'not told')} before, {now} now: equal to rounding, not to the bit"
        for name, now in here.items()
        if str(machine.get(name)) != now
    ]


def share(t: TrainingSection, world: World) -> None:
    """Every process takes an equal part of each step's sequences.

    Raises:
        UsageError: they cannot be divided.
    """
    assert isinstance(t.batch_size, int) and t.micro_batch_size
    ours, rest = divmod(t.batch_size, world.size)
    if rest:
        raise UsageError(
            f"training.batch_size={t.batch_size} cannot be divided among {world.size} processes; "
            f"try training.batch_size={(ours + 1) * world.size}"
        )
    if t.sharding != "none" and world.size == 1:
        raise UsageError(
            "training.sharding=full spreads weights over processes, and there is one; "
            "start it with: torchrun --nproc-per-node N -m glassformer train ..."
        )
    t.micro_batch_size = min(t.micro_batch_size, ours)


def processor() -> str:
    """The name of the processor: another one may round another way."""
    with contextlib.suppress(OSError, IndexError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
    return platform.processor() or platform.machine()
