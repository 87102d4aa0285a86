"""What training and resuming have in common: a model at step 0, the trainer around it, and the run until it ends."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glassformer.errors import DivergenceError, RunError
from glassformer.evaluation import LossEstimate
from glassformer.files import write_json
from glassformer.hub import load_model
from glassformer.models import build_model
from glassformer.recipes.derive import Choice
from glassformer.recipes.parts import build_trainer
from glassformer.recipes.schema import Recipe
from glassformer.recipes.start import Start
from glassformer.recipes.task import Task
from glassformer.training import Callback, Interrupted, RunFolder, Trainer, World
from glassformer.training.precision import peak_memory
from glassformer.training.report import ReportWriter, write_report
from glassformer.training.tracking import trackers

OF_VALIDATION = ("loss", "bits_per_byte", "accuracy")  # what summary.json calls val_...


@dataclass(frozen=True)
class Run:
    """What a finished run came to. `loss` is that of `model/` (the best weights) on the whole validation split,
    `train_loss` on a part of the training split (None in runs of older versions).
    seconds: in the loop, over all sittings; whole_seconds: from the command on, of a run in one sitting.
    command: of `glassformer`, which asks such a model ("": none does)."""

    path: Path
    loss: LossEstimate
    best_step: int
    steps: int
    tokens: int
    seconds: float
    parameters: int
    peak_memory_bytes: int
    command: str = "generate"
    train_loss: LossEstimate | None = None
    whole_seconds: float | None = None

    def to_dict(self) -> dict[str, Any]:
        loss = {f"val_{key}" if key in OF_VALIDATION else key: v for key, v in self.loss.to_dict().items()}
        if self.train_loss is not None:
            told = self.train_loss.to_dict()
            loss |= {"train_loss_eval": told["loss"], "train_interval": told["interval"], "train_n": told["n"]}
        rest = {key: v for key, v in asdict(self).items() if key not in ("loss", "train_loss", "path", "command")}
        return {"run": str(self.path), **loss, **rest}


def new_model(r: Recipe, config: Any, task: Task, start: Start | None) -> tuple[Any, list[Choice]]:
    """The model at step 0: weights drawn from the seed, the same in every process, or those of the model to start from
    where they fit; and what was taken over."""
    torch.manual_seed(r.training.seed)
    model: Any = build_model(config, **r.training.dropouts)
    if r.training.init != "gpt2":  # what a model has anyhow
        model.init_weights(r.training.init)
    return model, [] if start is None else [start.begin(model, task.tokenizer, task.source_tokenizer, task.labels)]


def trainer_for(
    r: Recipe,
    model: Any,
    task: Task,
    machine: dict[str, Any],
    path: Path,
    callbacks: Sequence[Callback],
    world: World,
    extended: Sequence[Mapping[str, int]] = (),
) -> Trainer:
    """The trainer at step 0; from here on each process has its own dropout."""
    model.to(machine["device"])
    watchers = (*callbacks, *trackers(r.training.track, RunFolder(path)), ReportWriter())
    heard = watchers if world.is_main else ()
    trainer = build_trainer(r, model, task, machine, path, heard, world, extended)
    if world.size > 1:
        torch.manual_seed(r.training.seed + world.rank)
    return trainer


def run_to_its_end(trainer: Trainer, task: Task, started: float | None = None) -> Run | None:
    """Train, then measure. The main process has the result, others None. started: `time.perf_counter()` when the
    command began, of a run in one sitting."""
    try:
        trainer.train()
    except (Interrupted, DivergenceError):
        if trainer.world.is_main:
            write_report(trainer.run)
        raise
    except RuntimeError as error:
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        reason = str(error).splitlines()[0]
        raise RunError(f"the model cannot be compiled here ({reason}); try training.compile=off") from error
    best, run, world = trainer.best, trainer.run, trainer.world
    if best is None:  # the last step always evaluates
        raise DivergenceError(
            f"{run.path}: no evaluation gave a finite validation loss, so there is no model/; "
            "try half of training.learning_rate, or training.precision=fp32"
        )
    if not world.is_main:
        return None
    if trainer.settings.whole_split:
        estimate = LossEstimate.from_dict(best["estimate"])
    else:
        measured = task.evaluate(load_model(run.model, device=str(trainer.train_step.device)), whole=True)
        measured.windows.save(run.windows)
        estimate = measured.estimate()
    result = Run(
        run.path,
        estimate,
        best["step"],
        trainer.step,
        trainer.tokens,
        round(trainer.seconds, 3),
        trainer.model.parameter_count(),
        peak_memory(str(trainer.train_step.device)),
        task.command,
        LossEstimate.from_dict(best["train"]) if best.get("train") else None,
        None if started is None else round(time.perf_counter() - started, 3),
    )
    write_json(run.summary, result.to_dict())
    write_report(run)
    return result
