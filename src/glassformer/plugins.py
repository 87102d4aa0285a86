"""Plug-ins: modules that put things of their own into the registries, so that a name in a recipe means them.

A module is imported where a person names it, and nowhere else:

    glassformer train ... --plugin my_losses         for one command
    GLASSFORMER_PLUGINS=my_losses,my_models          for all commands of a shell
    an installed package's entry points              for all, in the group `glassformer.plugins`
    import my_losses                                 in a script of one's own

Runs and model folders record the modules they need, and name those that are missing. They never import one: a
folder may come from anywhere.
"""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

from glassformer.errors import UsageError, did_you_mean

GROUP = "glassformer.plugins"
VARIABLE = "GLASSFORMER_PLUGINS"
HINT = "(one of your own: --plugin MODULE)"
_asked: list[str] = []  # modules that were named by a person, in order


def load_plugin(module: str, where: str = "--plugin") -> None:
    """Import a module by its name: from the current folder, or what is installed.

    Raises:
        UsageError: it is no name of a module, there is none, or importing it fails.
    """
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*", module) or module.endswith(".py"):
        name = Path(module).stem or "my_losses"
        raise UsageError(f"{where} {module}: the name of a module is needed, as in `import {name}`; try {where} {name}")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # last, so that no file here stands in for an installed module
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module}.".startswith(f"{error.name}."):
            raise UsageError(f"{where} {module}: it imports {error.name}, which is not installed") from error
        raise UsageError(
            f"{where} {module}: no module of this name in the current folder ({os.getcwd()}) or among what is installed"
        ) from None
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UsageError(
            f"{where} {module}: importing it fails at {place.filename}:{place.lineno} ({type(error).__name__}: {error})"
        ) from error
    if module not in _asked:
        _asked.append(module)


def load_installed() -> None:
    """Import all plug-ins: those of `load_named`, and the packages in here that register models and tasks.

    Raises:
        UsageError: as `load_plugin`.
    """
    for package in _bundled():
        importlib.import_module(f"{package}.plugin")
    load_named()


@cache
def load_named() -> None:
    """Import, once, what `GLASSFORMER_PLUGINS` and the entry points of installed packages name. No torch is imported.

    Raises:
        UsageError: as `load_plugin`.
    """
    from importlib.metadata import entry_points

    for module in filter(None, os.environ.get(VARIABLE, "").split(",")):
        load_plugin(module.strip(), where=f"{VARIABLE}:")
    for point in entry_points(group=GROUP):
        load_plugin(point.module, where=f"entry point {point.name}:")


def bundled_commands() -> dict[str, Callable[..., None]]:
    """The commands of the packages in here that register themselves, name -> function."""
    found: dict[str, Callable[..., None]] = {}
    for package in _bundled():
        found |= importlib.import_module(f"{package}.commands").COMMANDS
    return found


@cache
def _bundled() -> list[str]:
    """Packages in here that register themselves: those with a `plugin.py` (and a `commands.py`)."""
    return [f"{__package__}.{path.parent.name}" for path in sorted(Path(__file__).parent.glob("*/plugin.py"))]


def modules_of(things: Iterable[Any]) -> list[str]:
    """The modules that a person must name to have these things (classes, functions) of a run again: all that were
    named, and those of things that come from neither this package nor PyTorch."""
    found = list(_asked)
    for thing in things:
        module = str(getattr(thing, "__module__", "") or "")
        ours = module.partition(".")[0] in ("glassformer", "torch", "builtins", "__main__", "")
        if not ours and not any(f"{module}.".startswith(f"{known}.") for known in found):
            found.append(module)
    return found


def missing(modules: Iterable[str]) -> list[str]:
    """Those of the modules that are not imported yet."""
    return [module for module in modules if module not in sys.modules]


def needed(modules: Iterable[str], what: str) -> str | None:
    """A line about the plug-ins that are missing, or None."""
    if not (absent := missing(modules)):
        return None
    return f"{what} was made with the plug-in {' and '.join(absent)}; add {' '.join(f'--plugin {m}' for m in absent)}"


def no_such(name: str, what: str, known: Iterable[str]) -> str:
    """The message about a name that is neither known nor a path: the nearest name, known or beside that path."""
    known, folder = list(known), Path(name).expanduser().parent
    beside = [str(folder / other.name) for other in folder.iterdir()] if folder.is_dir() else []
    near = did_you_mean(name, [*known, *beside])
    hint = near if near.startswith("did") else f"{did_you_mean(name, known)} {HINT}"
    return f"{name}: no such {what}; {hint}"


def unknown(given: str, value: str, known: Iterable[str]) -> str:
    """The message about a name that is in no registry: the nearest one, and where others would come from."""
    return f"{given}={value!r} is unknown; {did_you_mean(value, known)} {HINT}"
