"""Open what was trained, to measure it."""

from __future__ import annotations

import os
from typing import Any

from glassformer.data.readers import keep_source
from glassformer.errors import UsageError
from glassformer.evaluation import LossEstimate
from glassformer.hub import load_labels, load_model, model_folder_of
from glassformer.recipes.recipe_file import recipe_of
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.schema import Recipe
from glassformer.recipes.task import open_task
from glassformer.tasks import Task
from glassformer.threads import set_threads


def evaluate(path: str | os.PathLike[str], *, data: str | None = None, split: str = "validation") -> LossEstimate:
    """Loss of a run, a checkpoint or a model folder on a whole split (default: validation, of the run's own data).

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, and `data` is missing or the model is no decoder.
    """
    model, task = open_run(path, data)
    return task.evaluate(model, split).loss_estimate()


def open_run(path: str | os.PathLike[str], data: str | None = None) -> tuple[Any, Task]:
    """The model of a run, a checkpoint or a model folder, and the data that it is measured on.

    Raises:
        ModelFolderError: there is no model. UsageError: it is no run, and `data` is missing or the model is no decoder.
    """
    set_threads()
    folder = model_folder_of(path)
    model, r = load_model(folder), recipe_of(path)
    if r is None and data is None:
        raise UsageError(f"{path} belongs to no run; name a text with --data")
    if r is None and "next_token" not in model.answers:
        raise UsageError(
            f"{path} belongs to no run, and its {type(model).__name__} does not continue texts, so no loss on a text "
            f"can be measured; evaluate a run: glassformer train ... training.start_from={path}"
        )
    r = r or Recipe()
    if data is not None:
        r = r.with_values({"data.source": keep_source(data)})
    task, _ = open_task(r, folder, load_labels(folder))
    task.check(None)
    return model, task.with_run(ResolvedTraining.complete(r.training, model.config.block_size).run_settings)
