"""Chat templates in Jinja's own sandbox, as in transformers and vLLM, with bounds on time and size.

`ImmutableSandboxedEnvironment` keeps a template, which comes with a file from elsewhere, away from Python's internals,
but not from looping for hours or filling the memory. So a `Meter` counts:

    every turn of a loop, call, operator and filter       one step, and the clock is read now and then
    what multiplies, joins, replaces, fills up            its size is known before it is made
    every list, dict and tuple                            measured when it is made, with all that it holds

A few methods and filters that chat templates do not use and whose cost cannot be known are left out (`_NO_METHODS`,
`_NO_FILTERS`). What a template can name is what `transformers` gives it (utils/chat_template_utils.py):
`raise_exception`, `strftime_now`, `tojson` without HTML escapes, `break` and `continue`, `{% generation %}`.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.defaults import DEFAULT_FILTERS
from jinja2.ext import Extension
from jinja2.filters import make_attrgetter
from jinja2.sandbox import ImmutableSandboxedEnvironment, safe_range
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from glassformer.errors import TokenizerError, UsageError, one_line
from glassformer.processors.tokenizers.template_meter import MAX_ITEMS, MAX_SOURCE, Meter, OverLimit

_NAMELESS = "<chat template>"
_NO_METHODS = {"center", "ljust", "rjust", "zfill", "expandtabs", "translate", "encode", "to_bytes"}
_NO_FILTERS = {"center", "pprint", "random", "striptags", "urlize", "wordwrap", "xmlattr"}
_LISTING = {"list", "sort", "unique", "batch", "slice", "groupby", "join", "min", "max"}
"""Filters that split a text into its characters."""


class Program:
    """A template that was read, checked and compiled once, to be run many times.

    Args:
        source: the template's text.
        change: may rewrite the parsed template before it is compiled.
        readable: undoes in a message what `change` did to the texts of the template.

    Raises:
        TokenizerError: the template is too long, or is not Jinja; the line is named.
    """

    def __init__(self, source: str, change: Callable[[nodes.Template], Any], readable: Callable[[str], str]):
        self._readable = readable
        if len(source) > MAX_SOURCE:
            raise TokenizerError(
                f"the chat template has {len(source):,} characters (at most {MAX_SOURCE:,}); is it one?"
            )
        environment = _Sandbox(Meter())
        try:
            tree = environment.parse(source)
            change(tree)
            _Metering().visit(tree)
            self._code: CodeType = environment.compile(tree, filename=_NAMELESS)
        except jinja2.TemplateSyntaxError as error:
            reason = one_line(error.message or "", most=300).rstrip(".")
            raise TokenizerError(f"the chat template is wrong in line {error.lineno}: {reason}; correct it") from error
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # from Python's own compiler
            raise TokenizerError("the chat template is nested too deeply to be read; is it one?") from error

    def run(self, variables: Mapping[str, Any]) -> str:
        """The text that the template makes of these variables, which must be plain data.

        Raises:
            UsageError: the template itself refuses them (`raise_exception`), for the reason it gives.
            TokenizerError: it asks for what it may not have, takes too long, makes too much, or fails.
        """
        environment = _Sandbox(Meter())
        template = jinja2.Template.from_code(environment, self._code, environment.globals)
        try:
            return template.render(variables)
        except _Raised as error:
            raise UsageError(f"the chat template refuses this conversation: {self._shown(error)}") from error
        except OverLimit as error:
            raise TokenizerError(f"the chat template was stopped: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise TokenizerError("the chat template was stopped: it calls itself without end") from error
        except Exception as error:  # whatever a template can do wrong: an undefined name, a sum of text and numbers
            where, reason = _line_of(error), self._shown(error) or type(error).__name__
            raise TokenizerError(f"the chat template fails{where}: {reason}") from error

    def _shown(self, error: Exception) -> str:
        return one_line(self._readable(str(error)), most=300)


class _Raised(Exception):
    """A template called `raise_exception`."""


class _Metering(NodeTransformer):
    """Puts what the environment does not see into a parsed template: turns of loops, `~`, lists, slices."""

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_filter(nodes.Const(1, lineno=node.lineno), "tick"), lineno=node.lineno))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _filter(nodes.List(node.nodes, lineno=node.lineno), "join")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "checked") if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List | nodes.Dict) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "checked")

    visit_Dict = visit_List

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _filter(node, "checked") if node.ctx == "load" else node


def _filter(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox with a meter: one for every run, so that runs at the same time do not count together."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, meter: Meter):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, "jinja2.ext.loopcontrols"],
            optimized=False,  # else parts of the template would run while it is compiled
            cache_size=0,
        )
        self.meter = meter
        self.concat = meter.join  # type: ignore[assignment]  # of the output, of macros and of {% set %} blocks
        filters: dict[str, Any] = {**DEFAULT_FILTERS, "join": self._join, "sum": self._sum, "tojson": tojson}
        self.filters = {name: self._metered(name, run) for name, run in filters.items() if name not in _NO_FILTERS}
        self.filters |= {"tick": meter.tick, "checked": meter.check}
        self.globals = {
            "range": safe_range,
            "dict": lambda *args, **kwargs: dict(*args, **kwargs),  # without the class's attributes
            "namespace": _Namespace,
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
        }

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        self.meter.tick()
        for value in (*args, *kwargs.values()):
            if isinstance(value, (tuple, dict)):  # `varargs` and `kwargs` of a macro among them
                self.meter.check(value)
        text, name = getattr(function, "__self__", None), getattr(function, "__name__", "")
        if isinstance(text, str):
            self.meter.tick(len(text) // 1024)
            if name == "join" and args:
                return self.meter.join(args[0], text)
            if name == "replace" and len(args) >= 2:
                self.meter.replaced(text, *args[:2])
        return self.meter.check(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.meter.tick()
        if operator == "%" and isinstance(left, str):
            self.meter.formatted(left, right)
        elif operator == "**" and isinstance(left, int) and isinstance(right, int):
            self.meter.bits(left.bit_length() * right)
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(other, int) and isinstance(one, int):
                    self.meter.bits(one.bit_length() + other.bit_length())
                elif isinstance(other, int) and isinstance(one, (str, list, tuple)):
                    (self.meter.reserve if isinstance(one, str) else self.meter.entries)(len(one) * max(other, 0))
        return self.meter.check(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _NO_METHODS and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        format_it = super().wrap_str_format(value)  # without attributes that a template must not see
        if format_it is None:
            return None

        def run(*args: Any, **kwargs: Any) -> str:
            self.meter.formatted(value.__self__, [*args, *kwargs.values()])
            return format_it(*args, **kwargs)

        return run

    def _join(self, value: Iterable[Any], d: str = "", attribute: str | None = None) -> str:
        parts = value if attribute is None else map(make_attrgetter(self, attribute), value)
        return self.meter.join(map(str, parts), str(d))

    def _sum(self, value: Iterable[Any], attribute: str | None = None, start: float = 0) -> float:
        numbers = [start, *(value if attribute is None else map(make_attrgetter(self, attribute), value))]
        if not all(isinstance(number, (int, float)) for number in numbers):
            raise TypeError("only numbers are added up by `sum`")  # lists would be copied over and over
        return sum(numbers)

    def _metered(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter whose values are looked at before, and whose result is checked after."""
        leading = 1 if hasattr(function, "jinja_pass_arg") else 0  # a context, an evaluation context, an environment

        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            self.meter.tick()
            first, *others = args[leading:] + tuple(kwargs.values())
            if any(isinstance(value, int) and abs(value) > MAX_ITEMS for value in others):
                raise OverLimit(f"it gives the filter `{name}` a number above {MAX_ITEMS:,}")
            if isinstance(first, str):
                self.meter.tick(len(first) // 1024)
                self.meter.entries(len(first) if name in _LISTING else 0)
            if name == "replace":
                self.meter.replaced(str(first), *map(str, others[:2]))
            elif name == "format":
                self.meter.formatted(str(first), others)
            elif name == "indent":
                width = next((value if isinstance(value, int) else len(value) for value in others), 4)
                self.meter.reserve((1 + len(str(first).splitlines())) * width)
            result = function(*args, **kwargs)
            return self.meter.join(result) if name == "tojson" else self.meter.check(result)

        return run


class _Namespace(Namespace):
    """Jinja's namespace; printed, it does not show what it holds, which may hold the namespace again."""

    def __repr__(self) -> str:
        return "<namespace>"


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for training; here its inside is simply run."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> Iterable[str]:
    """JSON as `json.dumps` writes it, in pieces; Jinja's own would write `<` as `\\u003c`."""
    for length in (indent if isinstance(indent, int) else len(indent or ""), *map(len, separators or ())):
        if length > 16:
            raise OverLimit("it writes JSON with more than 16 characters between two values")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return encoder.iterencode(value)


def raise_exception(message: Any) -> None:
    """What a template calls to refuse a conversation."""
    raise _Raised(str(message)[:500] if isinstance(message, str) else type(message).__name__)


def strftime_now(form: str) -> str:
    """The date and time now, by a pattern of `strftime`."""
    if not isinstance(form, str) or len(form) > 200:
        raise OverLimit("it asks for a date by a pattern of more than 200 characters")
    return datetime.now().strftime(form)


def _line_of(error: BaseException) -> str:
    """` in line N`, from the traceback that Jinja rewrote to the template's own lines."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in (_NAMELESS, "<template>"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" in line {line}"
