"""Go on with a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from glassformer.errors import DataError, RunError, UsageError
from glassformer.files import write_json, write_text
from glassformer.models import ModelConfig, make_config
from glassformer.recipes import derive
from glassformer.recipes.parts import differences, share
from glassformer.recipes.prediction import predict_run
from glassformer.recipes.record import read_recipe_text, recipe_text
from glassformer.recipes.running import Run, new_model, run_to_its_end, trainer_for
from glassformer.recipes.schema import Recipe, changed_recipe
from glassformer.recipes.start import Start
from glassformer.recipes.task import Task, open_task
from glassformer.recipes.text_task import TextTask
from glassformer.renamed import old_arguments
from glassformer.training import Callback, RunFolder, World, choose_device, latest_checkpoint, load_checkpoint
from glassformer.training.checkpoints import step_of, tokenizer_folder

CHANGEABLE = frozenset(
    f"training.{key}"
    for key in (
        "steps", "eval_every", "sample_every", "sample_tokens", "sample_prompt", "checkpoint_every", "keep_checkpoints",
        "track", "on_divergence", "watch_activations",
    )
)  # fmt: skip
"""What may change when a run goes on: how long it is, and what one sees and keeps of it. What it learns stays."""


@old_arguments(listeners="callbacks", tell="log")
def resume(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    callbacks: Sequence[Callback] = (),
    log: Callable[[str], None] = lambda line: None,
) -> Run | None:
    """Go on with a run from its newest whole checkpoint (before the first one: from the start), exactly as if it had
    never stopped.

    What the machine decided (precision, compilation, threads) is read from `recipe.toml` and not decided again. The
    number of processes may be another one; then, and on another processor, the rest is equal to rounding.

    Args:
        overrides: `training.key=value` for the keys in `CHANGEABLE`, which recipe.toml then keeps. With another number
            of `training.steps` also a finished run goes on; `training.schedules.Extended` says at what rates.

    Raises:
        RunError: there is no run, no checkpoint is whole, the run is finished, or its text has changed.
        UsageError: a key that may not change, or fewer steps than are done.
    """
    world = World.join()
    with world.lost_process_errors():
        run = _resume(path, list(overrides), callbacks, log, world)
        world.barrier()
    world.leave()
    return run


def _resume(
    path: str | os.PathLike[str],
    overrides: list[str],
    callbacks: Sequence[Callback],
    log: Callable[[str], None],
    world: World,
) -> Run | None:
    with world.main_first():
        run = RunFolder.open(path)
        before, rest = read_recipe_text(run)
        r = changed_recipe(before, overrides, CHANGEABLE)
        if world.is_main:
            run.clear_litter()
        folder, complaints = latest_checkpoint(run)
        machine = rest["machine"]
        extended = _extended(rest["extended"], before, r, 0 if folder is None else step_of(folder))
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
    start = None if folder is not None or r.training.start_from is None else Start.open(r.training.start_from)
    model, _ = new_model(r, config, task, start)
    trainer = trainer_for(r, model, task, machine, run.path, callbacks, world, extended)
    if folder is not None:
        state = load_checkpoint(folder, trainer.model, trainer.optimizer, world)
        if state["step"] >= trainer.settings.steps and run.summary.exists():
            use = f"write with it: glassformer {task.command} {run.path}, or " if task.command else ""
            longer = f"train on: glassformer resume {run.path} training.steps={2 * state['step']}"
            raise RunError(f"{run.path} is finished ({state['step']} steps); {use}{longer}")
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
        notices += [f"training.{key} = {value} ({old} before)" for key, value, old in _changes(before, r)]
        if r.training.steps != before.training.steps:
            notices.append(str(trainer.schedule) if extended else f"the schedule is that of {steps:,} steps")
        if overrides:
            _keep(run, r, {**rest, "extended": extended}, config, task, world)
        for notice in notices:
            log(notice)
            trainer.event("resumed", notice)
    world.barrier()
    return run_to_its_end(trainer, task)


def _extended(known: list[dict[str, int]], before: Recipe, r: Recipe, done: int) -> list[dict[str, int]]:
    """Where the run was given another length, this time included.

    Raises:
        UsageError: there are as many steps done already.
    """
    steps, planned = r.training.steps or 0, before.training.steps or 0
    if steps == planned or not done:
        return known
    if steps <= done:
        raise UsageError(f"training.steps={steps}, and {done:,} steps are done; give more than that")
    return [*known, {"step": done, "steps": planned}]


def _changes(before: Recipe, r: Recipe) -> list[tuple[str, Any, Any]]:
    """(key, value, value before) of [training]."""
    pairs = ((key, getattr(r.training, key), getattr(before.training, key)) for key in type(r.training).model_fields)
    return [(key, value, old) for key, value, old in pairs if value != old]


def _keep(run: RunFolder, r: Recipe, rest: dict[str, Any], config: Any, task: Task, world: World) -> None:
    """Keep what was asked for in recipe.toml, so that the next resume knows it; a finished run no longer is."""
    write_text(run.recipe, recipe_text(r, **rest))
    if r.training.steps and run.summary.exists():
        run.summary.unlink()
    if run.plan.exists() and isinstance(config, ModelConfig) and isinstance(task, TextTask):
        as_trained = derive.as_trained(config, r.training)
        about: Any = {"sizes": task.sizes(), "tokenizer": task.tokenizer, "world_size": world.size}
        write_json(run.plan, predict_run(as_trained, r, rest["machine"], **about))
