"""The text that a run learned from, read again to look inside its model."""

from __future__ import annotations

import os
from collections.abc import Iterable

from glassformer.data import read_documents
from glassformer.errors import DataError
from glassformer.recipes.recipe_file import recipe_of
from glassformer.tasks import TASKS

DEFAULT = "tinyshakespeare"


def texts_for(model: str | os.PathLike[str], source: str | None, characters: int) -> list[str]:
    """The first so many characters of `source`, of what a run learned from, or, of a model of no run, of Tiny
    Shakespeare. Of a run on examples: what it reads, not what it answers.

    Raises:
        DataError: the text cannot be read (any more).
    """
    recipe = recipe_of(model) if source is None else None
    if recipe is None:
        return _beginning((piece.text for piece in read_documents(source or DEFAULT)), characters)
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
