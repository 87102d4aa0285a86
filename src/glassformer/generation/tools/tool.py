"""Tools: functions that a model may call while it answers.

    def weather(city: str, days: int = 1) -> str:
        \"\"\"The weather of the next days.\"\"\"

    Tool.of(weather).schema     # {"type": "function", "function": {"name": "weather", "parameters": {...}}}

The JSON schema comes from the signature, and arguments are checked against it (pydantic). An error of a tool is a
result that the model reads.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ArgsKwargs

from glassformer.errors import GlassformerError, UsageError, did_you_mean, one_line

MAX_RESULT = 2000  # characters of a result that the model reads


@dataclass(frozen=True)
class Tool:
    """A function with a name, what it does, and the JSON schema of its arguments.

    run: is given the arguments by name and returns the result.
    """

    name: str
    description: str
    parameters: dict[str, Any]
    run: Callable[[Mapping[str, Any]], Any]

    @classmethod
    def of(cls, function: Callable[..., Any], name: str | None = None) -> Tool:
        """A tool from a function with annotations; its docstring is the description.

        Raises:
            UsageError: its arguments cannot be given by name, or have no JSON schema.
        """
        name = str(name or getattr(function, "__name__", ""))
        kinds = {parameter.kind for parameter in inspect.signature(function).parameters.values()}
        if kinds & {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL} or not name.isidentifier():
            raise UsageError(f"the tool {name or function!r} must be a named function whose arguments have names")
        try:
            adapter: TypeAdapter[Any] = TypeAdapter(_plain_function(function))  # type: ignore[arg-type]
            schema = adapter.json_schema()
        except Exception as error:  # pydantic raises several kinds
            raise UsageError(f"the tool {name} has arguments without a JSON schema: {one_line(str(error))}") from None

        def run(arguments: Mapping[str, Any]) -> Any:
            return adapter.validate_python(ArgsKwargs((), dict(arguments)))

        return cls(name, inspect.getdoc(function) or name, schema, run)

    @property
    def schema(self) -> dict[str, Any]:
        """As OpenAI's API and chat templates take it."""
        fields = {"name": self.name, "description": self.description, "parameters": self.parameters}
        return {"type": "function", "function": fields}


def _plain_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function, also a bound method, with annotations that are types and not texts: pydantic looks texts of methods
    up in another module than their own."""

    def called(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    signature = inspect.signature(function, eval_str=True)
    called.__signature__ = signature  # type: ignore[attr-defined]
    called.__annotations__ = {name: parameter.annotation for name, parameter in signature.parameters.items()}
    return called


@dataclass(frozen=True)
class ToolUse:
    """A call of the model and what came of it."""

    name: str
    arguments: Any
    result: str


@dataclass
class Toolbox:
    """The tools of a chat.

    observers: called after every turn with the user's text and the model's answer; `left` is called with the turns
    that no longer fit into what the model reads.
    """

    tools: dict[str, Tool] = field(default_factory=dict)
    observers: list[Callable[[str, str], None]] = field(default_factory=list)
    left: list[Callable[[str, str], None]] = field(default_factory=list)

    @classmethod
    def of(cls, tools: Toolbox | Iterable[Tool | Callable[..., Any]]) -> Toolbox:
        """From functions and `Tool`s.

        Raises:
            UsageError: two have one name; see `Tool.of`.
        """
        if isinstance(tools, Toolbox):
            return tools
        box = cls()
        for tool in tools:
            box.add(tool)
        return box

    def add(self, tool: Tool | Callable[..., Any]) -> None:
        """One more tool."""
        made = tool if isinstance(tool, Tool) else Tool.of(tool)
        if made.name in self.tools:
            raise UsageError(f"two tools are called {made.name}; rename one")
        self.tools[made.name] = made

    @property
    def schemas(self) -> list[dict[str, Any]]:
        """What the chat template shows."""
        return [tool.schema for tool in self.tools.values()]

    def use(self, name: str, arguments: Any) -> ToolUse:
        """Run a tool. The result is a text of bounded length; what goes wrong is a result, too."""
        return ToolUse(name, arguments, _shortened(self._result(name, arguments)))

    def _result(self, name: str, arguments: Any) -> str:
        if name not in self.tools:
            return f"error: there is no tool {name[:60]!r}; {did_you_mean(name, self.tools)}"
        if not isinstance(arguments, Mapping):
            return "error: the arguments are no JSON object"
        try:
            result = self.tools[name].run(arguments)
            return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)
        except ValidationError as error:
            first = error.errors()[0]
            return f"error: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        except GlassformerError as error:
            return f"error: {error}"
        except Exception as error:  # of a function that we do not know
            return f"error: {type(error).__name__}: {error}"


def _shortened(text: str) -> str:
    more = len(text) - MAX_RESULT
    return text if more <= 0 else f"{text[:MAX_RESULT]}\n({more:,} more characters are left out)"
