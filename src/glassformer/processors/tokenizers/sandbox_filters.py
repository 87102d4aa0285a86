"""The filters and methods that a chat template may use, and what each may make.

Left out are those that no chat template needs and that cost what cannot be told beforehand (`center`, `pprint`,
`random`, `urlize`, `wordwrap`, `xmlattr`, `striptags`, `str.translate`, `str.expandtabs`, `str.encode` ...).
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any

from jinja2.defaults import DEFAULT_FILTERS

from glassformer.processors.tokenizers.meter import MAX_ITEMS, Meter, OverLimit


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


METHODS: dict[type, frozenset[str]] = {
    str: _names(
        "capitalize casefold count endswith find format index isalnum isalpha isascii isdecimal isdigit isidentifier "
        "islower isnumeric isprintable isspace istitle isupper join lower lstrip partition removeprefix removesuffix "
        "replace rfind rindex rpartition rsplit rstrip split splitlines startswith strip swapcase title upper"
    ),
    dict: _names("copy get items keys values"),
    list: _names("copy count index"),
    tuple: _names("count index grouper list"),  # the last two of what `groupby` makes
    int: frozenset(),
    float: frozenset(),
}
"""The methods of plain values; those that change a value are not among them."""

HEAVY_TESTS = _names("eq equalto == ne != lt lessthan < le <= gt greaterthan > ge >= in")
"""Tests that go through the whole of their values."""

_LIGHT = frozenset(("count", "length", "first", "last", "default", "d", "items", "map", "select", "selectattr",
                    "reject", "rejectattr", "safe", "attr", "list", "reverse"))  # fmt: skip
_LISTING = frozenset(("list", "sort", "unique", "batch", "slice", "groupby", "title", "join", "min", "max", "sum"))
_LINE_ENDS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"
_WHITE = "".join(chr(code) for code in range(0x3001) if chr(code).isspace())


def tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> Any:
    """JSON as `json.dumps` writes it (in pieces); Jinja's own would write `<` as `\\u003c`."""
    for length in (indent if isinstance(indent, int) else len(indent or ""), *map(len, separators or ())):
        if length > 16:
            raise OverLimit("it writes JSON with more than 16 characters between two values")
    encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    return encoder.iterencode(value)


_KEPT = _names(
    "abs batch capitalize count d default dictsort e escape first float format groupby indent int items join last "
    "length list lower map max min reject rejectattr replace reverse round safe select selectattr slice sort string "
    "sum title trim truncate unique upper urlencode"
)
FILTERS: dict[str, Callable[..., Any]] = {name: DEFAULT_FILTERS[name] for name in _KEPT} | {"tojson": tojson}


def metered_filter(environment: Any, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    """A filter whose values are weighed before, and whose result is counted after."""
    meter: Meter = environment.meter
    leading = 1 if hasattr(function, "jinja_pass_arg") else 0  # a context, an evaluation context, an environment

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        meter.tick()
        values = [*args[leading:], *kwargs.values()]
        if any(isinstance(value, int) and abs(value) > MAX_ITEMS for value in values[1:]):
            raise OverLimit(f"it gives the filter `{name}` a number above {MAX_ITEMS:,}")
        if name in _LISTING and isinstance(values[0], str):
            meter.entries(len(values[0]))
        if name not in _LIGHT:
            meter.room(sum(map(meter.size, values)))
        args = bound_of_filter(environment, name, args, leading, values)
        result = function(*args, **kwargs)
        return meter.made("".join(map(meter.made, result)) if name == "tojson" else result)

    return run


def bound_of_filter(environment: Any, name: str, args: tuple[Any, ...], leading: int, values: list[Any]) -> Any:
    """Refuse what a filter would make too large; the arguments to call it with."""
    meter: Meter = environment.meter
    first, others = values[0], values[1:]
    if name == "replace":
        _replaced(meter, meter.emit(first), *map(meter.emit, others[:2]))
    elif name == "join":
        items = list(first)
        meter.room(sum(map(meter.size, items)) + len(items) * sum(map(meter.size, others)))
        return (*args[:leading], items, *args[leading + 1 :])
    elif name == "indent":
        width = next((value if isinstance(value, int) else len(value) for value in others if value is not None), 4)
        text = meter.emit(first)
        meter.room(len(text) + (1 + sum(map(text.count, _LINE_ENDS))) * max(width, 0))
    elif name == "format":
        meter.formatted(meter.emit(first), others)
    elif name == "round" and any(isinstance(value, int) and abs(value) > 300 for value in others):
        raise OverLimit("it rounds to more than 300 digits")
    elif name == "int" and isinstance(first, str) and len(first) > 1000:
        raise OverLimit("it reads a number of more than 1,000 digits")
    elif name == "sum" and any(isinstance(value, (list, tuple)) for value in others):
        raise OverLimit("it adds up lists; only numbers are added up by `sum`")
    return args


def bound_of_method(
    meter: Meter, method: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Refuse what a method of a text would make too large; the arguments to call it with."""
    text, name = method.__self__, method.__name__
    meter.tick(1 + len(text) // 1024)
    if name == "join" and args:
        meter.entries(len(args[0]) if isinstance(args[0], str) else 0)
        items = list(args[0])
        meter.room(sum(map(meter.size, items)) + len(items) * len(text))
        return (items, *args[1:]), kwargs
    if name == "replace" and len(args) >= 2 and all(isinstance(value, str) for value in args[:2]):
        _replaced(meter, text, *args[:2])
    elif name in ("split", "rsplit"):
        separator = args[0] if args else kwargs.get("sep")
        meter.entries(sum(map(text.count, _WHITE)) if separator is None else text.count(separator))
    elif name == "splitlines":
        meter.entries(sum(map(text.count, _LINE_ENDS)))
    return args, kwargs


def _replaced(meter: Meter, text: str, old: str = "", new: str = "") -> None:
    meter.room(len(text) + text.count(old) * max(0, len(new) - len(old)))
