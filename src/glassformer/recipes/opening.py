"""A recipe's task on its data: to be trained, to be measured, or to be read again."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from glassformer.data import read_documents
from glassformer.data.readers import keep_source
from glassformer.errors import DataError, UsageError
from glassformer.evaluation import LossEstimate
from glassformer.hub import load_labels, load_model, model_folder_of
from glassformer.recipes.recipe_file import recipe_of
from glassformer.recipes.resolved import ResolvedTraining
from glassformer.recipes.schema import Recipe
from glassformer.tasks import TASKS, Choice, Task
from glassformer.tasks.base import Opening
from glassformer.threads import set_threads


def open_task(r: Recipe, folder: Path | None = None, labels: tuple[str, ...] = ()) -> tuple[Task, list[Choice]]:
    """The task of a recipe on its data, and what was decided because the recipe leaves it open.

    Args:
        folder: a model folder whose processors are taken, instead of those that the recipe asks for; left out, that of
            the model to start from, unless the recipe names another tokenizer.
        labels: of a model that is only measured; left out, those of the training examples.

    Raises:
        UsageError, DataError, TokenizerError: the recipe or its data are wrong.
    """
    names_one = r.tokenizer.kind or r.tokenizer.path or r.tokenizer.source_kind
    inherited = r.training.start_from is not None and not names_one
    if folder is None and inherited:
        folder = model_folder_of(str(r.training.start_from))
    return TASKS[r.task.kind].open(Opening(r.data, r.tokenizer, r.task.settings, folder, inherited, labels))


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


def evaluate(path: str | os.PathLike[str], *, data: str | None = None, split: str = "validation") -> LossEstimate:
    """Loss of a run, a checkpoint or a model folder on a whole split (default: validation, of the run's own data).

    Raises:
        ModelFolderError, UsageError: as `open_run`; or the task measures no loss.
    """
    model, task = open_run(path, data)
    if (estimate := task.evaluate(model, split).loss_estimate()) is None:
        raise UsageError(f"this run is judged by its {task.score.words}; use open_run and task.evaluate")
    return estimate


def texts_for(model: str | os.PathLike[str], source: str | None, characters: int) -> list[str]:
    """The first so many characters of `source`, of what a run learned from, or, of a model of no run, of Tiny
    Shakespeare. Of a run on examples: what it reads, not what it answers.

    Raises:
        DataError: the text cannot be read (any more).
    """
    recipe = recipe_of(model) if source is None else None
    if recipe is None:
        return _beginning((piece.text for piece in read_documents(source or "tinyshakespeare")), characters)
    try:
        return _beginning(TASKS[recipe.task.kind].texts(recipe.data), characters)
    except DataError as error:
        raise DataError(f"{error}; {model} learned from it: give another text with --data") from None


def _beginning(texts: Iterable[str], characters: int) -> list[str]:
    found: list[str] = []
    for text in texts:
        found.append(text[:characters])
        characters -= len(text)
        if characters <= 0:
            break
    return found
