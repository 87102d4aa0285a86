"""Continue a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

import torch

from glassformer.errors import DataError, RunError, UsageError
from glassformer.files import write_text
from glassformer.models import make_config
from glassformer.recipes.machine import Machine
from glassformer.recipes.opening import open_task
from glassformer.recipes.plan import write_plan
from glassformer.recipes.reading import changed_recipe
from glassformer.recipes.recipe_file import read_recipe_text, recipe_text
from glassformer.recipes.resolved import ResolvedRecipe, ResolvedTraining
from glassformer.recipes.run import Run, finish
from glassformer.recipes.schema import Recipe
from glassformer.recipes.start_from import Start
from glassformer.recipes.trainer import build_trainer, new_model
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
"""What may change when a run is resumed: its length, and what it prints and keeps. What it learns stays the same."""


@old_arguments(listeners="callbacks", tell="log")
def resume(
    path: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    callbacks: Sequence[Callback] = (),
    log: Callable[[str], None] = lambda line: None,
) -> Run | None:
    """Continue a run from its newest undamaged checkpoint (before the first one: from the start), exactly as if it had
    never stopped.

    What the machine decided (precision, compilation, threads) is read from `recipe.toml` and not decided again. The
    number of processes may be another one; then, and on another processor, the rest is equal to rounding.

    Args:
        overrides: `training.key=value` for the keys in `CHANGEABLE`, which recipe.toml then keeps. With another number
            of `training.steps` a finished run continues too; `training.schedules.Extended` has its learning rates.

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
        recipe = changed_recipe(before, overrides, CHANGEABLE)
        if world.is_main:
            run.clear_litter()
        folder, complaints = latest_checkpoint(run)
        extended = _extended(rest["extended"], before, recipe, 0 if folder is None else step_of(folder))
        derived, machine = rest["derived"], Machine(**rest["machine"])
        choose_device(machine.device)
        notices = [f"damaged, passed over: {complaint}" for complaint in complaints] + machine.differences()
        try:
            task, _ = open_task(recipe, None if folder is None else tokenizer_folder(folder))
        except DataError as error:
            raise RunError(f"{run.path}: what it learns from cannot be read again: {error}") from None
        if task.source.key != derived["store"]:
            raise RunError(f"{run.path}: {recipe.data.source} has changed since; put it back, or train a new run")
        config = make_config(derived.get("kind", "decoder"), **derived["model"])
        t = ResolvedTraining.complete(recipe.training, config.block_size).shared(world.size)
        task = task.with_run(t.run_settings_on(machine))
        task.log = log if world.is_main else task.log
        r = ResolvedRecipe.of(recipe, t, config=config, machine=machine)
    from_start = t.start_from is not None and (folder is None or t.lora_rank is not None)  # an adapter stands on it
    start = Start.open(str(t.start_from)) if from_start else None
    model, _ = new_model(r, task, start)
    trainer = build_trainer(r, model, task, run.path, callbacks, world, extended)
    if folder is not None:
        state = load_checkpoint(folder, trainer.model, trainer.optimizer, world, task.companion)
        if state["step"] >= t.steps and run.summary.exists():
            use = f"try it: glassformer {task.command} {run.path}, or " if task.command else ""
            longer = f"train on: glassformer resume {run.path} training.steps={2 * state['step']}"
            raise RunError(f"{run.path} is finished ({state['step']} steps); {use}{longer}")
        trainer.restore(state)
        if len(state["random"]) != world.size:
            torch.manual_seed(t.seed + trainer.step + world.rank)
            notices.append(
                f"{len(state['random'])} processes before, {world.size} now: equal to rounding, not to the bit"
            )
    elif world.is_main:
        run.cut({})
    if world.is_main:
        place = f"going on after step {trainer.step} of {t.steps}" if folder else "no checkpoint yet: from the start"
        notices.append(place)
        old = dict(before.training)
        changes = ((key, value) for key, value in recipe.training if value != old[key])
        notices += [f"training.{key} = {value} ({old[key]} before)" for key, value in changes]
        if t.steps != before.training.steps:
            notices.append(str(trainer.schedule) if extended else f"the schedule is that of {t.steps:,} steps")
        if overrides:  # the next resume has to know them, and a finished run no longer is
            write_text(run.recipe, recipe_text(r, **{**rest, "extended": extended}))
            run.summary.unlink(missing_ok=True)
            if run.plan.exists():
                write_plan(run, r, task, world.size)
        for notice in notices:
            log(notice)
            trainer.event("resumed", notice)
    world.barrier()
    return finish(trainer, task)


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
