"""The tools that come with the package, by name."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Annotated, Any

from pydantic import Field

from glassformer import plugins
from glassformer.errors import UsageError, did_you_mean
from glassformer.generation.tools.calculator import calculate
from glassformer.generation.tools.memory import ChatMemory
from glassformer.generation.tools.notebook import Notebook
from glassformer.generation.tools.tool import Toolbox

NAMES = ("calculator", "clock", "notebook")


def calculator(expression: Annotated[str, Field(description="such as (12 + 3) * 4")]) -> str:
    """Calculate an arithmetic expression exactly: + - * / // % **, brackets, abs, max, min, round, sqrt."""
    return calculate(expression)


def clock() -> str:
    """The date, the time and the day of the week, here and now."""
    return datetime.now().astimezone().strftime("%Y-%m-%d %H:%M:%S %z, %A")


def toolbox(names: Iterable[str] = (), memory: ChatMemory | None = None) -> Toolbox:
    """The tools of these names, and the one that searches a memory.

    names: calculator, clock, notebook, or module:function of your own.

    Raises:
        UsageError: there is no such tool.
    """
    box = Toolbox()
    for name in names:
        if name == "notebook":
            notebook = Notebook()
            box.add(notebook.notebook_write)
            box.add(notebook.notebook_read)
            box.observers.append(notebook.keep_scratchpads)
            box.left.append(notebook.keep_turn)
        elif ":" in name:
            box.add(_imported(name))
        elif name in NAMES:
            box.add(calculator if name == "calculator" else clock)
        else:
            raise UsageError(
                f"there is no tool {name!r}; {did_you_mean(name, NAMES)}; a function of your own is module:function"
            )
    if memory is not None:
        box.add(memory.recall)
        box.observers.append(memory.add)
    return box


def _imported(name: str) -> Callable[..., Any]:
    """The function `module:function`; modules of the current folder are found too."""
    module, _, function = name.partition(":")
    plugins.load_plugin(module, "--tool")
    found = getattr(sys.modules[module], function, None)
    if not callable(found):
        raise UsageError(f"--tool {name}: {module} has no function {function!r}")
    return found  # type: ignore[no-any-return]
