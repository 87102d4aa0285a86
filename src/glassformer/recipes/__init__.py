"""Recipes: TOML files that name the parts of a run. `schema.py` -> `resolve.py` -> `run.py`: a `Recipe` (what a person
wrote) becomes a frozen `ResolvedRecipe` (everything decided), which is run, and kept in recipe.toml."""

from glassformer.recipes.opening import evaluate
from glassformer.recipes.reading import builtin_recipes, read_recipe
from glassformer.recipes.resume import resume
from glassformer.recipes.run import Run, train
from glassformer.recipes.schema import Recipe
from glassformer.recipes.stages import resume_stages, train_stages
from glassformer.recipes.tune import tune

__all__ = [
    "Recipe",
    "Run",
    "builtin_recipes",
    "evaluate",
    "read_recipe",
    "resume",
    "resume_stages",
    "train",
    "train_stages",
    "tune",
]
