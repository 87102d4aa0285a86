"""Put a recipe's parts together and run it; take a run folder apart again and go on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from glassformer.data import CORPORA
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, DivergenceError, RunError, UsageError, plural
from glassformer.evaluation import LossEstimate
from glassformer.files import write_json
from glassformer.interchange import load_model, model_folder_of
from glassformer.models import ModelConfig, build_model, kind_of, make_config
from glassformer.recipes import derive
from glassformer.recipes.measured import measured_choices
from glassformer.recipes.parts import begin_with, build_trainer, detect_machine, differences, share
from glassformer.recipes.plan import predict_run
from glassformer.recipes.record import read_recipe_text, recipe_text
from glassformer.recipes.schema import Recipe, read_recipe
from glassformer.recipes.task import Task, open_task
from glassformer.recipes.text_task import TextTask
from glassformer.training import (
    Interrupted,
    Listener,
    RunFolder,
    Trainer,
    World,
    choose_device,
    latest_checkpoint,
    load_checkpoint,
    set_threads,
)
from glassformer.training.checkpoints import tokenizer_folder
from glassformer.training.precision import peak_memory
from glassformer.training.report import ReportWriter, write_report
from glassformer.training.tracking import trackers

OF_VALIDATION = ("loss", "bits_per_byte", "accuracy")  # what summary.json calls val_...


@dataclass(frozen=True)
class Run:
    """What a finished run came to. `loss` is that of `model/` (the best weights) on the whole validation split,
    `train_loss` on a part of the training split (None in runs of older versions).
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

    def to_dict(self) -> dict[str, Any]:
        loss = {f"val_{key}" if key in OF_VALIDATION else key: v for key, v in self.loss.to_dict().items()}
        if self.train_loss is not None:
            told = self.train_loss.to_dict()
            loss |= {"train_loss_eval": told["loss"], "train_interval": told["interval"], "train_n": told["n"]}
        rest = {key: v for key, v in asdict(self).items() if key not in ("loss", "train_loss", "path", "command")}
        return {"run": str(self.path), **loss, **rest}


def train(
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    out: str | os.PathLike[str] | None = None,
    seed: int | None = None,
    device: str | None = None,
    listeners: Sequence[Listener] = (),
    tell: Callable[[str], None] = lambda line: None,
) -> Run | None:
    """Train by a recipe (built in, or a path; None: sizes follow from the text and the machine).

    Args:
        overrides: `section.key=value`, laid over the recipe. data, seed, device: short for three of them.
        out: the run folder; default `runs/<recipe>-<n>`. tell: is given one line for each thing worth knowing.

    Returns:
        What it came to; under `torchrun` in the main process alone, None in the others.

    Raises:
        UsageError: the recipe or an override is wrong. DataError: the text is. RunError: `out` holds a run.
        Interrupted, DivergenceError: see `Trainer.train`.
    """
    world = World.join()
    with world.telling_who_is_lost():
        run = _train(recipe, list(overrides), data, out, seed, device, listeners, tell, world)
        world.wait_for_all()
    world.leave()
    return run


def resume(
    path: str | os.PathLike[str], *, listeners: Sequence[Listener] = (), tell: Callable[[str], None] = lambda line: None
) -> Run | None:
    """Go on with a run from its newest whole checkpoint (before the first one: from the start), exactly as if it had
    never stopped.

    What the machine decided (precision, compilation, threads) is read from `recipe.toml` and not decided again. The
    number of processes may be another one; then, and on another processor, the rest is equal to rounding.

    Raises:
        RunError: there is no run, no checkpoint is whole, the run is finished, or its text has changed.
    """
    world = World.join()
    with world.telling_who_is_lost():
        run = _resume(path, listeners, tell, world)
        world.wait_for_all()
    world.leave()
    return run


def _train(
    recipe: str | None,
    overrides: list[str],
    data: str | None,
    out: str | os.PathLike[str] | None,
    seed: int | None,
    device: str | None,
    listeners: Sequence[Listener],
    tell: Callable[[str], None],
    world: World,
) -> Run | None:
    asked = {"recipe": recipe or "", "overrides": overrides, "data": data or ""}
    with world.one_first():  # the first process of a machine finds every mistake, and prepares the text for the others
        r = read_recipe(recipe, overrides, {"data": {"source": data}, "training": {"seed": seed, "device": device}})
        if recipe is None:
            r.name = "stdin" if r.data.source == "-" else Path(r.data.source).stem or "run"
        if recipe is not None or r.model.get("n_layer") is not None:
            # what does not fit together is said before the text is read
            derive.model_config(r, **derive.PLACEHOLDERS)
        path = Path(out) if out is not None else RunFolder.next_free("runs", r.name)
        if world.is_main:
            RunFolder.check_free(path)
        machine = detect_machine(r)
        r.data.source = keep_source(r.data.source)
        task, choices = open_task(r)
        if recipe is None and isinstance(task, TextTask) and r.model.kind in (None, "decoder"):
            gflops = derive.measure_gflops(machine["device"])
            choices += derive.size_choices(r, task.n_train, task.tokenizer.vocab_size, gflops)
        elif recipe is None and not isinstance(task, TextTask):
            choices += derive.example_choices(r, task.n_train, task.longest)
        choices += derive.optimizer_choices(r)
        derive.check_optimizer_keys(r.training, overrides)
        config = derive.model_config(r, **task.facts())
        choices += derive.init_choice(r, config)
        task.check(config)
        if world.is_main:
            derive.fill_training(r.training)
            if isinstance(config, ModelConfig) and isinstance(task, TextTask):
                least = r.training
                if r.training.batch_size == "auto":
                    least = r.training.model_copy(update={"batch_size": world.size, "micro_batch_size": 1})
                derive.check_memory(config, least, machine["device"], world.size)  # before anything is tried
                choices += measured_choices(r.training, config, machine, task.n_train, world)
            elif r.training.batch_size == "auto":
                raise UsageError("training.batch_size=auto is measured for decoders on texts; give a number here")
            share(r.training, world)
    path, r, machine = world.tell_all((path, r, machine))  # what was measured is measured once
    task.r = r
    # a shape that follows from it is the same for all
    config = derive.model_config(r, **task.facts())
    model, taken = _new_model(r, config, r.training.start_from)
    trainer = _build(r, model, task, machine, path, listeners, world)
    if world.is_main:
        choices += taken
        for choice in choices:
            tell(str(choice))
        count = plural(trainer.model.parameter_count(), "parameter")
        spread = f"; {world.size} processes" if world.size > 1 else ""
        tell(f"{count}: {derive.shape_in_words(config)}{spread}")
        if r.data.source not in CORPORA and Path(r.data.source).exists():
            r.data.source = str(Path(r.data.source).resolve())  # `resume` may be typed in another folder
        if r.training.start_from is not None:
            r.training.start_from = str(Path(r.training.start_from).resolve())
        derived = {
            "kind": kind_of(config),
            "model": config.model_dump(),
            "choices": [str(choice) for choice in choices],
            "store": task.key,
            "n_answers": task.n_answers,
            **task.derived(),
        }
        run = RunFolder.create(path, recipe_text(r, asked=asked, derived=derived, machine=machine))
        if isinstance(config, ModelConfig) and isinstance(task, TextTask):
            write_json(run.plan, predict_run(config, r, machine, **task.sizes(), world_size=world.size))
        for text in task.warnings(config):
            trainer.event("warning", text)
            tell(f"warning: {text}")
    return _go(trainer, task)


def _resume(
    path: str | os.PathLike[str], listeners: Sequence[Listener], tell: Callable[[str], None], world: World
) -> Run | None:
    with world.one_first():
        run = RunFolder.open(path)
        r, rest = read_recipe_text(run)
        if world.is_main:
            run.clear_litter()
        folder, complaints = latest_checkpoint(run)
        machine = rest["machine"]
        choose_device(machine["device"])
        notices = [f"damaged, passed over: {complaint}" for complaint in complaints] + differences(machine, world)
        try:
            task, _ = open_task(r, None if folder is None else tokenizer_folder(folder))
        except DataError as error:
            raise RunError(f"{run.path}: what it learns from cannot be read again: {error}") from None
        if task.key != rest["derived"]["store"]:
            raise RunError(f"{run.path}: {r.data.source} has changed since; put it back, or train anew")
        config = make_config(rest["derived"].get("kind", "decoder"), **rest["derived"]["model"])
        share(r.training, world)
    model, _ = _new_model(r, config, r.training.start_from if folder is None else None)
    trainer = _build(r, model, task, machine, run.path, listeners, world)
    if folder is not None:
        state = load_checkpoint(folder, trainer.model, trainer.optimizer, world)
        if state["step"] >= trainer.settings.steps and run.summary.exists():
            way = f"write with it: glassformer {task.command} {run.path}" if task.command else "there is no more to do"
            raise RunError(f"{run.path} is finished ({state['step']} steps); {way}")
        trainer.restore(state)
        if len(state["random"]) != world.size:
            torch.manual_seed(r.training.seed + trainer.step + world.rank)
            notices.append(
                f"{len(state['random'])} processes before, {world.size} now: equal to rounding, not to the bit"
            )
    elif world.is_main:
        run.cut({})
    if world.is_main:
        steps = trainer.settings.steps
        notices.append(
            f"going on after step {trainer.step} of {steps}" if folder else "no checkpoint yet: from the start"
        )
        for notice in notices:
            tell(notice)
            trainer.event("resumed", notice)
    world.wait_for_all()
    return _go(trainer, task)


def _new_model(r: Recipe, config: Any, start_from: str | None) -> tuple[Any, list[derive.Choice]]:
    """The model at step 0: weights drawn from the seed, the same in every process, or those of another run where
    they fit; and what was taken over."""
    torch.manual_seed(r.training.seed)
    model: Any = build_model(config, **r.training.dropouts)
    if r.training.init != "gpt2":  # what a model has anyhow
        model.init_weights(r.training.init)
    return model, [] if start_from is None else [begin_with(model, start_from)]


def _build(
    r: Recipe,
    model: Any,
    task: Task,
    machine: dict[str, Any],
    path: Path,
    listeners: Sequence[Listener],
    world: World,
) -> Trainer:
    """The trainer at step 0; from here on each process has its own dropout."""
    model.to(machine["device"])
    watchers = (*listeners, *trackers(r.training.track, RunFolder(path)), ReportWriter())
    heard = watchers if world.is_main else ()
    trainer = build_trainer(r, model, task, machine, path, heard, world)
    if world.size > 1:
        torch.manual_seed(r.training.seed + world.rank)
    return trainer


def evaluate(path: str | os.PathLike[str], *, data: str | None = None, split: str = "validation") -> LossEstimate:
    """Loss of a run, a checkpoint or a model folder on a whole split (default: validation, of the run's own data).

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, so that `data` is needed.
    """
    model, task = open_run(path, data)
    return task.evaluate(model, whole=True, split=split).estimate()


def open_run(path: str | os.PathLike[str], data: str | None = None) -> tuple[Any, Task]:
    """The model of a run, a checkpoint or a model folder, and the data that it is measured on.

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, so that `data` is needed.
    """
    set_threads()
    folder = model_folder_of(path)
    model = load_model(folder)
    recipes = [folder / "recipe.toml" for folder in (Path(path), *Path(path).resolve().parents[:2])]
    r = next((read_recipe_text(RunFolder(recipe.parent))[0] for recipe in recipes if recipe.is_file()), None)
    if r is None:
        if data is None:
            raise UsageError(f"{path} belongs to no run; name a text with --data")
        r = Recipe()
    r.data.source = r.data.source if data is None else keep_source(data)
    task, _ = open_task(r, folder)
    task.check(None)
    return model, task


def _go(trainer: Trainer, task: Task) -> Run | None:
    """Train, then measure. The main process has the result, others None."""
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
        measured = task.evaluate(load_model(run.model, device=str(trainer.update.device)), whole=True)
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
        peak_memory(str(trainer.update.device)),
        task.command,
        LossEstimate.from_dict(best["train"]) if best.get("train") else None,
    )
    write_json(run.summary, result.to_dict())
    write_report(run)
    return result
