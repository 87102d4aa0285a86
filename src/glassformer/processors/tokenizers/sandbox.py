"""Jinja that ends: templates out of somebody else's file, run without reach and with a meter.

Jinja's own sandbox keeps a template away from the inside of Python. It does not keep it from running for ever, nor from
asking for all the memory, so everything that costs goes through a `Meter` here:

    {% for %}, macros, comparisons     a step each; nested values are walked, a step a value
    {{ output }}, `~`                  the characters are counted before they are put together
    + - * / // % **                    the size of the result is known before it is made
    methods and filters                those that chat templates use, no others; what they make is counted

The steps are put into the parsed template (a tree) before it is compiled, so that no loop is without one. What a
template can name is what `transformers` gives to chat templates (utils/chat_template_utils.py): `raise_exception`,
`strftime_now`, `tojson` without HTML escapes, `break` and `continue`, `{% generation %}`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from types import CodeType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.defaults import DEFAULT_TESTS
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter, safe_range
from jinja2.utils import Namespace

from glassformer.errors import TokenizerError, UsageError
from glassformer.processors.tokenizers.meter import MAX_SOURCE, Meter, OverLimit
from glassformer.processors.tokenizers.metering import Metering
from glassformer.processors.tokenizers.sandbox_filters import (
    FILTERS,
    HEAVY_TESTS,
    METHODS,
    bound_of_method,
    metered_filter,
)

_NAMELESS = "<chat template>"


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
                f"the chat template is {len(source):,} characters long (at most {MAX_SOURCE:,}); is it one?"
            )
        environment = _Sandbox(Meter())
        try:
            tree = environment.parse(source)
            change(tree)
            Metering().visit(tree)
            self._code: CodeType = environment.compile(tree, filename=_NAMELESS)
        except jinja2.TemplateSyntaxError as error:
            reason = _one_line(error.message or "").rstrip(".")
            raise TokenizerError(f"the chat template is wrong in line {error.lineno}: {reason}; correct it") from error
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:  # from Python's own compiler
            raise TokenizerError("the chat template is nested too deeply to be read; is it one?") from error

    def run(self, variables: Mapping[str, Any]) -> str:
        """The text that the template makes of these variables, which must be plain data.

        Raises:
            UsageError: the template itself refuses them (`raise_exception`); its reason is told.
            TokenizerError: it asks for what it may not have, takes too long, makes too much, or fails.
        """
        environment = _Sandbox(Meter())
        template = jinja2.Template.from_code(environment, self._code, environment.globals)
        try:
            return template.render(variables)
        except _Raised as error:
            raise UsageError(f"the chat template refuses this conversation: {self._told(error)}") from error
        except OverLimit as error:
            raise TokenizerError(f"the chat template was stopped: {error}") from error
        except (RecursionError, MemoryError) as error:
            raise TokenizerError("the chat template was stopped: it calls itself without end") from error
        except Exception as error:  # whatever a template can do wrong: an undefined name, a sum of text and numbers
            where, reason = _line_of(error), self._told(error) or type(error).__name__
            raise TokenizerError(f"the chat template fails{where}: {reason}") from error

    def _told(self, error: Exception) -> str:
        return _one_line(self._readable(str(error)))


class _Raised(Exception):
    """A template called `raise_exception`."""


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
        self.filters = {name: metered_filter(self, name, function) for name, function in FILTERS.items()}
        tests: dict[str, Any] = DEFAULT_TESTS
        self.tests = {name: self._metered_test(name, test) for name, test in tests.items()}
        self.globals = {
            "range": safe_range,
            "dict": dict_of,
            "namespace": _Namespace,
            "raise_exception": raise_exception,
            "strftime_now": strftime_now,
        }
        # What `Metering` calls; a template cannot name these.
        self.tick, self.weigh, self.emit, self.join, self.hold = (
            meter.tick, meter.weigh, meter.emit, meter.join, meter.made,
        )  # fmt: skip

    def call(self, context: Any, function: Any, /, *args: Any, **kwargs: Any) -> Any:
        owner = getattr(function, "__self__", None)
        if owner is self.meter:
            return function(*args)
        self.meter.tick()
        for value in args:
            if isinstance(value, tuple):
                self.meter.weigh(value)
        if isinstance(owner, str):
            args, kwargs = bound_of_method(self.meter, function, args, kwargs)
        return self.meter.made(super().call(context, function, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        self.meter.before_operator(operator, left, right)
        return self.meter.made(super().call_binop(context, operator, left, right))

    def getattr(self, obj: Any, attribute: str) -> Any:
        self.meter.tick()
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        self.meter.tick()
        if isinstance(argument, slice):
            return self.meter.made(obj[argument])
        return super().getitem(obj, argument)

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        for kind, names in METHODS.items():
            if isinstance(obj, kind):
                return attr in names
        return super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        text = getattr(value, "__self__", None)
        if not isinstance(text, str) or getattr(value, "__name__", "") != "format":
            return None
        return lambda *args, **kwargs: _Formatter(self).vformat(text, args, kwargs)

    def _metered_test(self, name: str, test: Callable[..., Any]) -> Callable[..., Any]:
        if name not in HEAVY_TESTS:
            return test
        return lambda *args: test(*(self.meter.weigh(value) for value in args))


class _Formatter(SandboxedFormatter):
    """`str.format` with its widths bounded and its parts counted."""

    def get_field(self, field_name: str, args: Any, kwargs: Any) -> Any:
        value, used = super().get_field(field_name, args, kwargs)
        return self._env.meter.weigh(value), used  # type: ignore[attr-defined]

    def format_field(self, value: Any, format_spec: str) -> str:
        meter: Meter = self._env.meter  # type: ignore[attr-defined]
        meter.width(format_spec)
        return meter.made(format(meter.emit(value) if isinstance(value, (list, tuple, dict)) else value, format_spec))


class _Namespace(Namespace):
    """Jinja's namespace, which keeps what it holds to itself when it is printed, and has no underscored names."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        self, args = args[0], args[1:]
        Namespace.__init__(self)
        for name, value in dict(*args, **kwargs).items():
            self[name] = value

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str) or name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot have the name {name!r}")
        Namespace.__setitem__(self, name, value)

    def __repr__(self) -> str:
        return "<namespace>"


class _Generation(Extension):
    """`{% generation %}` marks what an assistant wrote, for those who train on it; here its inside is simply run."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Any) -> nodes.Node:
        line = next(parser.stream).lineno
        return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True), lineno=line)


def raise_exception(message: Any) -> None:
    """What a template calls to refuse a conversation."""
    raise _Raised(str(message)[:500] if isinstance(message, str) else type(message).__name__)


def strftime_now(form: str) -> str:
    """The date and time now, by a pattern of `strftime`."""
    if not isinstance(form, str) or len(form) > 200:
        raise OverLimit("it asks for a date by a pattern of more than 200 characters")
    return datetime.now().strftime(form)


def dict_of(*args: Iterable[Any], **kwargs: Any) -> dict[Any, Any]:
    """`dict(...)` as a plain function, without the class's attributes."""
    return dict(*args, **kwargs)


def _one_line(text: str) -> str:
    text = " ".join(text.split())
    return text[:300] + ("..." if len(text) > 300 else "")


def _line_of(error: BaseException) -> str:
    """` in line N`, from the traceback that Jinja rewrote to the template's own lines."""
    line, trace = None, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename in (_NAMELESS, "<template>"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return "" if line is None else f" in line {line}"
