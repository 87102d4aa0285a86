"""The model at step 0 and the trainer around it, made from a resolved recipe, for new and resumed runs alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from glassformer.data import prefetched
from glassformer.hub.adapters import new_adapter
from glassformer.models import Decoder, build_model, flops_per_token
from glassformer.recipes.machine import Machine
from glassformer.recipes.resolved import ResolvedRecipe, ResolvedTraining, as_trained
from glassformer.recipes.start_from import Start
from glassformer.tasks import Choice, Task
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
)
from glassformer.training.compiling import compiled
from glassformer.training.devices import peak_flops
from glassformer.training.diagnostics import NEVER_NEGATIVE
from glassformer.training.report import ReportWriter
from glassformer.training.sharding import shard
from glassformer.training.tracking import trackers


def new_model(r: ResolvedRecipe, task: Task, start: Start | None) -> tuple[Any, list[Choice]]:
    """The model at step 0, the same in every process: weights drawn from the seed, or those of the model to start from
    where they fit; and what was taken over."""
    torch.manual_seed(r.training.seed)
    model: Any = build_model(r.config, **r.training.dropouts)
    if r.training.init != "gpt2":  # what a model has already
        model.init_weights(r.training.init)
    return model, [] if start is None else [start.begin(model, task, lora=r.training.lora_rank is not None)]


def build_train_step(
    model: Any, task: Task, t: ResolvedTraining, machine: Machine, world: World | None = None
) -> TrainStep:
    """One step of a model that is on its device already, and its optimizer."""
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
        companion=task.companion,
    )
    loss: torch.nn.Module = LossModule(model, task.loss, task.companion)
    return TrainStep(
        compiled(loss, machine.device) if machine.compile else loss,
        optimizer,
        world=world,
        micro_batch_size=t.micro_batch_size,
        grad_clip=t.grad_clip,
        precision=machine.precision,
    )


def build_trainer(
    r: ResolvedRecipe,
    model: Any,
    task: Task,
    path: Path,
    callbacks: Sequence[Callback],
    world: World,
    extended: Sequence[Mapping[str, int]] = (),
) -> Trainer:
    """Everything that a run needs, at step 0; nothing is written yet. From here on each process has its own dropout.

    extended: where the run was given another length (`schedule_for`).
    """
    t, machine, run = r.training, r.machine, RunFolder(path)
    model.to(machine.device)
    callbacks = (*callbacks, *trackers(t.track, run), ReportWriter()) if world.is_main else ()
    if t.lora_rank is not None:
        new_adapter(
            model, t.lora_targets, rank=t.lora_rank, alpha=t.lora_alpha or 2.0 * t.lora_rank, dropout=t.lora_dropout
        )
    task.begin(model)
    batches = task.batches("train", world.rank, world.size)
    never_negative = getattr(r.config, "activation", None) in NEVER_NEGATIVE
    if t.sharding == "full":
        shard(model, precision=machine.precision)
    decoder = isinstance(model, Decoder)
    trainer = Trainer(
        model=model,
        task=task,
        train_step=build_train_step(model, task, t, machine, world),
        batches=batches if task.on_policy else prefetched(batches, machine.device),
        schedule=schedule_for(r, extended),
        settings=TrainingSettings(
            steps=t.steps,
            eval_every=t.eval_every,
            sample_every=t.sample_every,
            checkpoint_every=t.checkpoint_every,
            keep_checkpoints=t.keep_checkpoints,
            whole_split=not t.eval_batches,
            lag=bool(t.lag_steps),
            on_divergence=t.on_divergence,
            watch="*" if t.watch_activations else "*.feedforward.hidden" if never_negative else "",
        ),
        run=run,
        operations=flops_per_token(as_trained(r.config, t)).training if decoder else 0.0,
        peak=peak_flops(machine.device, machine.precision) * world.size if decoder else None,
        callbacks=callbacks,
    )
    if world.size > 1:
        torch.manual_seed(t.seed + world.rank)
    return trainer


def schedule_for(r: ResolvedRecipe, extended: Sequence[Mapping[str, int]]) -> Schedule | Extended:
    """The schedule of a run, which may have been given another length on the way.

    extended: of each time, `step` (updates done by then) and `steps` (how many had been planned), the first first.
    """
    t = r.training
    lengths = [*(each["steps"] for each in extended), t.steps]
    parts = [Schedule(t.schedule, n, t.warmup_steps, t.final_lr_fraction, t.cooldown_fraction) for n in lengths]
    schedule: Schedule | Extended = parts[0]
    for each, after in zip(extended, parts[1:], strict=True):
        schedule = Extended(schedule, after, each["step"])
    return schedule
