"""Old run folders: what was written by an earlier version is brought up to date while it is read.

A format is a number in `state.json` and in `recipe.toml` (there `format`; none is 1). Each migration is a function
from one format to the next, so that any old one takes as many steps as it needs. The files themselves stay as they
are; the next checkpoint is written in the newest format.

1 -> 2   one generator state a process, and Python's and NumPy's beside PyTorch's; batches have an `order` ("random"
         was the only one, called shuffle); the monitor's state, skipped steps and the factor on the learning rate.
2 -> 3   the monitor's state is called monitor (was doctor), its counters recoveries and given (treatments, told);
         the best evaluation holds metrics by name as [value, n, interval];
         a recipe's [objective] is its [task].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from glassformer.errors import RunError, UsageError, pip_line

FORMAT = 3
SECTION_NAMES = {"objective": "task"}
"""Old names of a recipe's sections, which `rename_sections` and overrides still take, and the new ones."""


def _state_1_to_2(state: dict[str, Any]) -> dict[str, Any]:
    batches = dict(state["batches"])
    if "shuffle" in batches:
        batches["order"] = "random" if batches.pop("shuffle") else "consecutive"
    fresh = {"doctor": {}, "skipped": [], "rate": 1.0}
    return {**state, "format": 2, "random": [state["random"]], "batches": batches, **fresh}


def _state_2_to_3(state: dict[str, Any]) -> dict[str, Any]:
    names = {"treatments": "recoveries", "told": "given"}
    monitor = {names.get(key, key): value for key, value in state["doctor"].items()}
    new = {**{key: value for key, value in state.items() if key != "doctor"}, "format": 3, "monitor": monitor}
    if best := state.get("best"):
        train = best.get("train") and _metrics(best["train"])
        new["best"] = {"step": best["step"], "metrics": _metrics(best["estimate"]), "train": train}
    return new


def _metrics(estimate: dict[str, Any]) -> dict[str, list[Any]]:
    """A loss estimate as metrics by name; the intervals of all but the loss are unknown."""
    names = [name for name in ("bits_per_byte", "accuracy") if estimate.get(name) is not None]
    others = {name: [estimate[name], estimate["n"], None] for name in names}
    return {"loss": [estimate["loss"], estimate["n"], estimate["interval"]], **others}


def _recipe_1_to_2(data: dict[str, Any]) -> dict[str, Any]:
    return {**data, "format": 2, "data": {"order": "random", **data.get("data", {})}}


def rename_sections(data: dict[str, Any], where: str) -> dict[str, Any]:
    """The content of a recipe with its sections under today's names.

    Raises:
        UsageError: it has a section under both names.
    """
    if both := [(old, new) for old, new in SECTION_NAMES.items() if old in data and new in data]:
        old, new = both[0]
        raise UsageError(f"{where} has [{old}] and [{new}], the old and the new name of one section; keep [{new}]")
    return {SECTION_NAMES.get(name, name): section for name, section in data.items()}


def _recipe_2_to_3(data: dict[str, Any]) -> dict[str, Any]:
    return {**rename_sections(data, "recipe.toml"), "format": 3}


Migrations = dict[int, Callable[[dict[str, Any]], dict[str, Any]]]
STATE: Migrations = {1: _state_1_to_2, 2: _state_2_to_3}
RECIPE: Migrations = {1: _recipe_1_to_2, 2: _recipe_2_to_3}


def migrate_state(state: dict[str, Any], where: str) -> dict[str, Any]:
    """The content of a state.json in today's format.

    Raises:
        RunError: a newer glassformer wrote it.
    """
    return _migrate(state, STATE, where)


def migrate_recipe(data: dict[str, Any], where: str) -> dict[str, Any]:
    """The content of a run's recipe.toml in today's format.

    Raises:
        RunError: a newer glassformer wrote it.
    """
    return _migrate(data, RECIPE, where)


def _migrate(data: dict[str, Any], steps: Migrations, where: str) -> dict[str, Any]:
    found = data.get("format", 1)
    if not isinstance(found, int) or found > FORMAT:
        raise RunError(
            f"{where} was written by a newer glassformer (format {found}, this one reads up to {FORMAT}); "
            f"{pip_line('glassformer')} --upgrade"
        )
    for number in range(found, FORMAT):
        data = steps[number](data)
    return data
