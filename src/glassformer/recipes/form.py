"""A recipe as a form: the settings that are numbers or choices, each with its type, bounds, meaning and value.

What a page may set is what this lists: no paths, no names of data.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from glassformer.errors import UsageError, did_you_mean
from glassformer.models import config_fields, kinds_that_answer
from glassformer.models.building import registered
from glassformer.recipes.reading import builtin_recipes, read_recipe
from glassformer.recipes.schema import DECIDED, Recipe, TrainingSection
from glassformer.tasks import TASKS

FIRST = (
    "training.steps",
    "training.batch_size",
    "training.learning_rate",
    "training.seed",
    "model.n_layer",
    "model.n_head",
    "model.n_embd",
    "model.block_size",
    "training.checkpoint_every",
    "training.keep_checkpoints",
)
"""What most people want to change, in the order of the form."""
OF_THIS_MACHINE = frozenset({"device", "sharding", "track", "compile", "start_from"})
SIMPLE = frozenset({"integer", "number", "boolean"})


def recipe_form(name: str) -> dict[str, Any]:
    """A JSON schema, `properties` by `section.key`, whose defaults are the recipe's own values; `first`: the
    keys that most people want to change.

    Raises:
        UsageError: no built-in recipe has this name, or it has several stages.
    """
    known = builtin_recipes()
    if name not in known:
        raise UsageError(f"there is no recipe {name!r}; {did_you_mean(name, known)}")
    r = read_recipe(name)
    found = {f"training.{key}": part for key, part in _simple(TrainingSection).items() if key not in OF_THIS_MACHINE}
    kind = r.model.kind or kinds_that_answer(TASKS[r.task.kind].asks)[0]
    config = registered(kind)[0]
    found |= {f"model.{key}": part for key, part in _simple(config).items() if key in config_fields(kind)}
    found = {key: part for key, part in found.items() if key.partition(".")[2] not in DECIDED}
    for key, part in found.items():
        part["default"] = _value(r, key, part)
    first = [key for key in FIRST if key in found]
    order = [*first, *(key for key in found if key not in first)]
    return {"type": "object", "properties": {key: found[key] for key in order}, "first": first}


def words_of(name: str, settings: Mapping[str, Any]) -> list[str]:
    """Settings of a form as `glassformer train` takes them.

    Raises:
        UsageError: a key that the form does not have, or a value that does not fit.
    """
    form = recipe_form(name)["properties"]
    words = []
    for key, value in settings.items():
        if key not in form:
            raise UsageError(f"{key} is not set here; {did_you_mean(key, form)}")
        if not isinstance(value, bool | int | float) and value not in form[key].get("enum", ()):
            raise UsageError(f"{key}={value!r}: give a number, true or false, or one of the names of the form")
        words.append(f"{key}={str(value).lower() if isinstance(value, bool) else value}")
    read_recipe(name, words)
    return words


def _value(r: Recipe, key: str, part: Mapping[str, Any]) -> Any:
    try:
        value = r.value(key)
    except AttributeError:
        value = None
    return part.get("default") if value is None else value


def _simple(section: Any) -> dict[str, dict[str, Any]]:
    """The numbers, switches and choices of a section or a configuration."""
    docs, found = _docs(section), {}
    for key, part in section.model_json_schema()["properties"].items():
        kinds = [kind for kind in part.get("anyOf", [part]) if kind.get("type") != "null"]
        chosen = next((kind for kind in kinds if kind.get("type") in SIMPLE or "enum" in kind), None)
        if chosen is None:
            continue
        kept = {name: chosen[name] for name in ("type", "enum", "minimum", "maximum") if name in chosen}
        found[key] = {**kept, "default": part.get("default"), "description": docs.get(key, part.get("description", ""))}
    return found


@lru_cache(maxsize=32)
def _docs(section: type) -> dict[str, str]:
    """What stands below the fields of a class and of its bases."""
    found: dict[str, str] = {}
    for cls in reversed(section.__mro__):
        if not cls.__module__.startswith("glassformer."):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, below in zip(body.body, body.body[1:], strict=False):
            named = isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and field.target.id
            if named and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
                found[named] = " ".join(str(below.value.value).split())
    return found
