"""Go on with a run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

import torch

from glassformer.errors import DataError, RunError
from glassformer.models import make_config
from glassformer.recipes.parts import differences, share
from glassformer.recipes.record import read_recipe_text
from glassformer.recipes.running import Run, new_model, run_to_its_end, trainer_for
from glassformer.recipes.start import Start
from glassformer.recipes.task import open_task
from glassformer.training import Listener, RunFolder, World, choose_device, latest_checkpoint, load_checkpoint
from glassformer.training.checkpoints import tokenizer_folder


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
    start = None if folder is not None or r.training.start_from is None else Start.open(r.training.start_from)
    model, _ = new_model(r, config, task, start)
    trainer = trainer_for(r, model, task, machine, run.path, listeners, world)
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
    return run_to_its_end(trainer, task)
