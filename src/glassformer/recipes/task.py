"""The task of a recipe, on its data."""

from __future__ import annotations

from pathlib import Path

from glassformer.hub import model_folder_of
from glassformer.recipes.schema import Recipe
from glassformer.tasks import TASKS, Choice, Task
from glassformer.tasks.base import Opening


def open_task(r: Recipe, folder: Path | None = None, labels: tuple[str, ...] = ()) -> tuple[Task, list[Choice]]:
    """The data of a recipe, ready to be read, and what was decided because the recipe leaves it open.

    folder: a model folder whose tokenizers are taken, instead of those that the recipe asks for; left out, that of the
    model to start from, unless the recipe names another tokenizer.
    labels: of a model that is only measured; left out, those of the training examples.

    Raises:
        UsageError, DataError, TokenizerError: the recipe or its data are wrong.
    """
    names_one = r.tokenizer.kind or r.tokenizer.path or r.tokenizer.source_kind
    inherited = r.training.start_from is not None and not names_one
    if folder is None and inherited:
        folder = model_folder_of(str(r.training.start_from))
    return TASKS[r.task.kind].open(Opening(r.data, r.tokenizer, r.task.settings, folder, inherited, labels))
