"""Checks of a view's options, by a pydantic model made from its signature.

@view("glassformer look lens runs/demo-1 'To be'")
def lens(model: Any, tokenizer: Tokenizer, text: Text, *, top: Top = 5) -> LensView: ...
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

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
    )
