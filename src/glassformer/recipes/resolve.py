"""From a `Recipe`, in which most is open, to a `ResolvedRecipe`, in which everything is decided: once, in this order.

decide     from data, machine and the model to start from: shape, steps, optimizer    `defaults.py`
fit_batch  threads, batch_size=auto                                                   `machine.py`, `batch_size.py`
resolve    both, whether it fits into memory, compile=auto                            `memory.py`, `compile_choice.py`
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glassformer.errors import UsageError
from glassformer.models import ModelConfig
from glassformer.recipes import defaults
from glassformer.recipes.batch_size import batch_size_choice
from glassformer.recipes.compile_choice import compile_choice
from glassformer.recipes.draft import Draft
from glassformer.recipes.machine import Machine, thread_choice, typical_gflops
from glassformer.recipes.memory import check_memory
from glassformer.recipes.resolved import ResolvedRecipe, ResolvedTraining, as_trained
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import is_transformer, kind_for, model_config
from glassformer.recipes.start_from import Start
from glassformer.tasks import TASKS, Task
from glassformer.training import World


def open_start(draft: Draft) -> Start | None:
    """The model to start from, under the name that recipe.toml keeps."""
    if draft.recipe.training.start_from is None:
        return None
    start = Start.open(draft.recipe.training.start_from)
    draft.recipe = draft.recipe.with_values({"training.start_from": start.name})
    placeholders = TASKS[draft.recipe.task.kind].placeholders or {}
    start.configuration(draft.recipe, {key: value for key, value in placeholders.items() if key == "n_classes"})
    return start


def check_shape(draft: Draft, *, fresh: bool) -> None:
    """Find what does not fit together before the data are read."""
    placeholders = TASKS[draft.recipe.task.kind].placeholders
    if placeholders is None or draft.recipe.training.start_from is not None:
        return
    if not fresh or draft.recipe.model.get("n_layer") is not None:
        model_config(draft.recipe, **placeholders)


def can_plan(task: Task, config: Any) -> bool:
    """Whether time and memory of a run are known before it."""
    return task.planned and isinstance(config, ModelConfig)


def decide(
    draft: Draft, task: Task, start: Start | None, machine: Machine, overrides: Iterable[str], *, fresh: bool
) -> Any:
    """What the recipe leaves open, from the data, the machine's speed, and the model to start from.

    Args:
        overrides: those of the command line. fresh: there is no recipe.

    Returns:
        The configuration of the model.
    """
    timed = fresh and (task.planned or (task.tuned and start is not None))
    gflops = typical_gflops(machine.device) if timed else 0.0
    if start is not None:
        draft.note(start.tokenizer_choices(draft.recipe, task))
        config, changes = start.configuration(draft.recipe, start.facts(task))
        draft.note(changes)
        if fresh and task.planned:
            defaults.fine_tuning_on_text(draft, config, **task.text_sizes(), gflops=gflops)
        elif fresh:
            defaults.fine_tuning_on_examples(draft, task, config, gflops)
        defaults.fine_tuning_rates(draft, config, stays_near_start=task.stays_near_start)
    elif fresh and task.planned and is_transformer(kind_for(draft.recipe)):
        defaults.sizes_for_text(draft, task.source.n_train, task.tokenizer.vocab_size, gflops)
    elif fresh and not task.planned:
        defaults.sizes_for_examples(draft, task.source.n_train, task.longest)
    defaults.optimizer_of_kind(draft)
    defaults.check_optimizer_keys(draft.recipe, overrides)
    if start is None:
        config = model_config(draft.recipe, **task.model_fields())
        defaults.init_of_sines(draft, config)
    return config


def fit_batch(
    draft: Draft, task: Task, config: Any, machine: Machine, train_tokens: int, world_size: int = 1
) -> tuple[ResolvedTraining, Machine]:
    """Threads, and `training.batch_size=auto`, which is tried here.

    Raises:
        DeviceError: not even one sequence fits.
    """
    t = complete(draft.recipe, config, world_size)
    if draft.recipe.training.batch_size == "auto":
        draft.log("trying how many sequences at once are fastest ...")
        draft.add([batch_size_choice(task, as_trained(config, t), t, machine, train_tokens, world_size)])
        return complete(draft.recipe, config, world_size), machine
    machine, found = thread_choice(machine, config, t.micro_batch_size)
    draft.note(found)
    return t, machine


def resolve(
    draft: Draft, task: Task, start: Start | None, machine: Machine, world: World, overrides: list[str], *, fresh: bool
) -> ResolvedRecipe:
    """Decide everything.

    Raises:
        UsageError, DataError, DeviceError: something does not fit: into the data, into memory, together.
    """
    config = decide(draft, task, start, machine, overrides, fresh=fresh)
    least = complete(draft.recipe, config, world.size)
    task.with_run(least.run_settings).check(config)
    tried = can_plan(task, config)
    if tried:
        check_memory(as_trained(config, least), least, machine.device, world.size)
    elif draft.recipe.training.batch_size == "auto":
        raise UsageError("training.batch_size=auto is measured for decoders on texts; give a number here")
    draft.show()
    t, machine = fit_batch(draft, task, config, machine, task.source.n_train, world.size)
    if tried:
        machine, found = compile_choice(task, as_trained(config, t), t, machine, world.size, draft.log)
        draft.note(found)
    return ResolvedRecipe.of(draft.recipe, t, config=config, machine=machine, choices=tuple(draft.choices))


def complete(r: Recipe, config: Any, world_size: int) -> ResolvedTraining:
    """[training] with every number; for batch_size=auto with the smallest batch."""
    least = world_size if r.training.batch_size == "auto" else None
    return ResolvedTraining.complete(r.training, config.block_size, batch_size=least).shared(world_size)
