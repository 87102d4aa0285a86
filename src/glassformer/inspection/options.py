"""Checks of a view's options, by a pydantic model made from its signature.

@view("glassformer look lens runs/demo-1 'To be'")
def lens(model: Any, tokenizer: Tokenizer, text: Text, *, top: Top = 5) -> LensView: ...
"""

from __future__ import annotations

import functools
import inspect
import shlex
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ParamSpec, TypeVar, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.models.mistakes import first_mistake
from glassformer.view_options import Parameter, parameters_of

P = ParamSpec("P")
V = TypeVar("V")


def view(*examples: str) -> Callable[[Callable[P, V]], Callable[P, V]]:
    """Make a function a view: its keyword-only options are checked, and `examples` are command lines for its help."""

    def decorate(function: Callable[P, V]) -> Callable[P, V]:
        @functools.wraps(function)
        def checked(*args: P.args, **kwargs: P.kwargs) -> V:
            model, known = _model(function, True), inspect.signature(function).parameters
            given = {name: value for name, value in kwargs.items() if name in model.model_fields or name not in known}
            made = _validated(model, given)
            return function(*args, **{**kwargs, **{name: getattr(made, name) for name in given}})  # type: ignore[arg-type]

        checked.examples = examples  # type: ignore[attr-defined]
        return checked

    return decorate


def options_of(function: Callable[..., Any]) -> type[BaseModel]:
    """The arguments and options of a view as a pydantic model."""
    return _model(function, False)


def example_of(function: Callable[..., Any]) -> dict[str, Any]:
    """The options of a view's first example (`view`), as strings and lists of strings.

    >>> from glassformer.inspection import lens
    >>> example_of(lens)
    {'text': 'The capital of France is', 'pin': ' Paris'}
    """
    examples: tuple[str, ...] = getattr(function, "examples", ())
    words = shlex.split(examples[0])[4:] if examples else []  # after `glassformer look VIEW MODEL`
    options = [p for p in parameters_of(function, SkipJsonSchema[Tensor]) if p.name != "corpus"]
    flags = {f"--{p.option.flag or p.name.replace('_', '-')}": p for p in options if p.keyword_only}
    places = [p for p in options if not p.keyword_only]
    found: dict[str, Any] = {}
    while words:
        word = words.pop(0)
        p = flags[word] if word in flags else places[min(len([o for o in places if o.name in found]), len(places) - 1)]
        value: Any = word
        if word in flags:
            value = True if p.annotation is bool or isinstance(p.default, bool) else words.pop(0)
        is_list = _takes_list(p.annotation)
        found[p.name] = [*found.get(p.name, []), value] if is_list else value
    return found


def _takes_list(annotation: Any) -> bool:
    """Whether several values are one option."""
    while hasattr(annotation, "__metadata__"):
        annotation = get_args(annotation)[0]
    return isinstance(get_origin(annotation), type) and issubclass(get_origin(annotation), Iterable)


def check_options(function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments and options of a view, defaults included, from those that were given.

    Raises:
        UsageError: one is missing, unknown or out of range.
    """
    made = _validated(options_of(function), given)
    return {name: getattr(made, name) for name in type(made).model_fields}


def _validated(model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise UsageError(first_mistake(error, model)) from None


@functools.cache
def _model(function: Callable[..., Any], keyword_only: bool) -> type[BaseModel]:
    parameters = parameters_of(function, SkipJsonSchema[Tensor])
    fields: dict[str, Any] = {
        p.name: (p.annotation, _field(p)) for p in parameters if p.keyword_only or not keyword_only
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(function.__name__, __config__=config, **fields)


def _field(p: Parameter) -> Any:
    option = p.option
    return Field(
        ... if p.is_required else p.default,
        description=option.description or None,
        ge=option.ge,
        le=option.le,
        max_length=option.max_length,
        json_schema_extra={"slider": option.slider} if option.slider else None,
    )
