"""Level 8: recipes. A recipe is a TOML file that names the parts; this room reads it and puts them together.

It is the only place that knows everybody.
"""

from glassformer.recipes.assemble import evaluate, train
from glassformer.recipes.resuming import resume
from glassformer.recipes.running import Run
from glassformer.recipes.schema import Recipe, builtin_recipes, read_recipe

__all__ = ["Recipe", "Run", "builtin_recipes", "evaluate", "read_recipe", "resume", "train"]
