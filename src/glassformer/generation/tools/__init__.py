"""Tools that a model may call while it answers.

tool.py          a function as a tool, and the tools of a chat      calls.py       calls in what a model wrote
calculator.py    exact arithmetic                                   notebook.py    pages beyond the context window
memory.py        earlier chats, on disk                             built_in.py    these by name
"""

from glassformer.generation.tools.built_in import NAMES, calculator, clock, toolbox
from glassformer.generation.tools.calculator import calculate
from glassformer.generation.tools.calls import Call, ToolForm
from glassformer.generation.tools.memory import ChatMemory, Memory
from glassformer.generation.tools.notebook import Notebook
from glassformer.generation.tools.tool import Tool, Toolbox, ToolUse

__all__ = [
    "NAMES",
    "Call",
    "ChatMemory",
    "Memory",
    "Notebook",
    "Tool",
    "ToolForm",
    "ToolUse",
    "Toolbox",
    "calculate",
    "calculator",
    "clock",
    "toolbox",
]
