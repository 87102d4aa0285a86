"""`recipe.toml` of a run folder: the recipe with every value in it, what was asked, derived, and decided here."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import tomli_w

from glassformer import plugins
from glassformer.data import CORPORA, EXAMPLE_SETS
from glassformer.errors import RunError
from glassformer.hub.families.glassformer import functions_of
from glassformer.models import MODELS, kind_of
from glassformer.recipes.reading import tomllib
from glassformer.recipes.resolved import ResolvedRecipe
from glassformer.recipes.schema import SECTIONS, Recipe
from glassformer.tasks import TASKS
from glassformer.text_files import decode
from glassformer.training import SCHEDULES, RunFolder
from glassformer.training.migrations import FORMAT, migrate_recipe


def recipe_text(r: ResolvedRecipe, *, derived: dict[str, Any], **rest: Any) -> str:
    """The text of recipe.toml.

    derived: what else the table has, beside the configuration. rest: further tables.
    """
    tables = {
        "format": FORMAT,
        **r.model_dump(),
        "derived": {"kind": kind_of(r.config), "model": r.config.model_dump(), **derived},
        "machine": r.machine.model_dump(),
        **rest,
    }
    if modules := plugins_of(r):
        tables["plugins"] = modules
    return tomli_w.dumps(_without_none(tables))


def plugins_of(r: ResolvedRecipe) -> list[str]:
    """The modules to name in order to read this recipe again (`plugins.modules_of`)."""
    named = [TASKS[r.task.kind], *MODELS[kind_of(r.config)], *functions_of(r.config)]
    sources = [table[r.data.source].read for table in (CORPORA, EXAMPLE_SETS) if r.data.source in table]
    return plugins.modules_of([*named, *sources, SCHEDULES[r.training.schedule]])


def read_recipe_text(run: RunFolder) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a run as it was resolved, and the further tables: `machine`, `derived`, `asked`, `extended`.

    Raises:
        RunError: the file is damaged, was edited so that it can no longer be read, or a plug-in is missing.
    """
    try:
        data = migrate_recipe(tomllib.loads(decode(run.recipe.read_bytes())), str(run.recipe))
        del data["format"]
        rest = {key: data.pop(key) for key in list(data) if key not in (*SECTIONS, "name")}
        plugins.load_installed()
        if needed := plugins.needed(rest.get("plugins", []), str(run.path)):
            raise RunError(needed)
        machine, derived = rest["machine"], rest["derived"]
        missing = [key for key in ("device", "threads", "precision", "compile") if key not in machine]
        if missing or "store" not in derived:
            raise KeyError((missing or ["store"])[0])
        return Recipe.model_validate(data), {"extended": [], **rest}
    except (ValueError, KeyError, TypeError) as error:
        line = f"{error} is missing" if isinstance(error, KeyError) else " ".join(str(error).splitlines()[:3])
        raise RunError(f"{run.recipe}: damaged or edited ({line}); put it back to resume") from None


def recipe_of(path: str | os.PathLike[str]) -> Recipe | None:
    """The recipe of the run that a run folder, a checkpoint or a model folder belongs to; None: it belongs to none.

    Raises:
        RunError: as `read_recipe_text`.
    """
    if not Path(path).exists():  # the name of a pulled model
        return None
    places = (Path(path), *Path(path).resolve().parents[:2])
    return next((read_recipe_text(RunFolder(place))[0] for place in places if (place / "recipe.toml").is_file()), None)


def _without_none(value: Any) -> Any:
    """TOML has no null: leave such keys out."""
    if isinstance(value, dict):
        return {key: _without_none(v) for key, v in value.items() if v is not None}
    return value
