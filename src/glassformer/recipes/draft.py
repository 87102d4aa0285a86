"""How a recipe is decided: value by value, each with its reason. A choice makes a new recipe."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from glassformer.recipes.schema import Recipe
from glassformer.tasks import Choice


class Draft:
    """A recipe on the way to a `ResolvedRecipe`: the recipe as decided so far, and the choices that led to it.

    Args:
        log: is given a line for each choice, from `show` on, so that until then a mistake stays one line.
    """

    def __init__(self, recipe: Recipe, log: Callable[[str], None] = lambda line: None):
        self.recipe, self.choices = recipe, list[Choice]()
        self.log, self._shown = log, False

    def choose(self, key: str, value: Any, why: str) -> Any:
        """Decide `section.key` where the recipe leaves it open. Returns the value that holds."""
        if self.recipe.is_open(key):
            self.add([Choice(key, value, why)])
        return self.recipe.value(key)

    def add(self, choices: Iterable[Choice]) -> None:
        """Take over choices of keys of the recipe."""
        for choice in choices:
            self.recipe = self.recipe.with_values({choice.key: choice.value})
            self.note([choice])

    def note(self, choices: Iterable[Choice]) -> None:
        """Keep choices of other things than the recipe's keys."""
        for choice in choices:
            self.choices.append(choice)
            if self._shown:
                self.log(str(choice))

    def show(self) -> None:
        """Log what was decided so far, and from now on each choice at once."""
        self._shown = True
        for choice in self.choices:
            self.log(str(choice))
