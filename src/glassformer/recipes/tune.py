"""`tune`: `train` with a task that turns a model into an assistant, and nothing more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from glassformer.errors import UsageError, did_you_mean
from glassformer.recipes.reading import read_recipe
from glassformer.recipes.run import Run, train
from glassformer.tasks import TASKS


def tune(
    method: str,
    recipe: str | None = None,
    overrides: Iterable[str] = (),
    *,
    data: str | None = None,
    model: str | None = None,
    **others: Any,
) -> Run | None:
    """Fine-tune a model: `train` with task.kind=method and training.start_from=model.

    Args:
        method: a task that is `tuned`: sft, reward, dpo, kto, ppo, grpo, distill. recipe, overrides, data, others: as
            in `train`.

    Raises:
        UsageError: there is no such method, the recipe is for another one, or no model or data are named.
    """
    overrides = list(overrides)
    methods = [name for name, task in TASKS.items() if task.tuned]
    if method not in methods:
        raise UsageError(f"tune {method}: there is no such method; {did_you_mean(method, methods)}")
    given = {override.partition("=")[0].strip() for override in overrides}
    if "task.kind" in given:
        raise UsageError(f"task.kind is named twice, as tune {method} and as a setting; leave the setting out")
    if model is not None and "training.start_from" in given:
        raise UsageError("training.start_from is given twice, as --model and as a setting; use one")
    if recipe is None:
        overrides.insert(0, f"task.kind={method}")
        if data is None and "data.source" not in given:
            raise UsageError(f"tune {method} needs data: --data FILE (see: glassformer data list)")
        if model is None and "training.start_from" not in given:
            raise UsageError(
                f"tune {method} starts from a model: --model MODEL (a run, or a name of glassformer pull); to learn "
                f"from nothing: glassformer train --data {data or 'FILE'} task.kind={method}"
            )
    elif (kind := read_recipe(recipe).task.kind) != method:
        raise UsageError(f"the recipe {recipe} is for task.kind={kind}; use: glassformer tune {kind} {recipe}")
    if model is not None:
        overrides.append(f"training.start_from={model}")
    return train(recipe, overrides, data=data, **others)
