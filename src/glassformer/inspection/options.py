"""Options of views, declared in the signatures of their functions: the types that several share, and the checks.

    @view("glassformer look lens runs/demo-1 'To be'")
    def lens(model: Any, tokenizer: Tokenizer, text: Text, *, top: Top = 5) -> LensView: ...

From the signature follow the pydantic model (`options_of`), the command with its `--help`, and the JSON schema.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model
from pydantic.json_schema import SkipJsonSchema
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.models.mistakes import first_mistake

P = ParamSpec("P")
V = TypeVar("V")

GIVEN = ("name", "model", "model_or_size", "tokenizer", "source_tokenizer", "input_tokenizer", "vectors", "open_model")
"""Parameters that are no options: the caller has opened the model (`look.Subject`)."""

Text = Annotated[str, Field(description="A text, in quotes; - reads standard input.")]
TextOrImage = Annotated[str | SkipJsonSchema[Tensor], Field(description="A text, in quotes; - reads standard input.")]
Corpus = Annotated[str | Iterable[str], Field(description="Texts to look in.")]
Target = Annotated[str | None, Field(description="For a translator: the target text; default: its own answer.")]
Position = Annotated[int, Field(description="The position of the token; -1 is the last.")]
OptionalPosition = Annotated[
    int | None, Field(description="The position of the token; default: the last (for an encoder the first <mask>).")
]
Layer = Annotated[int, Field(description="The layer, from 0.")]
Head = Annotated[int, Field(description="The head, from 0.")]
AttentionKind = Annotated[
    Literal["self", "cross", "encoder"],
    Field(description="self; for a translator also cross (to the source) and encoder."),
]
Top = Annotated[int, Field(ge=1, description="How many to show.")]
Token = str | int | None
Temperature = Annotated[float, Field(description="Divides the logits; 0 takes the most likely token.")]
TopK = Annotated[int, Field(description="Keep the k most likely tokens; 0 keeps all.")]
TopP = Annotated[float, Field(description="Keep the fewest tokens whose probability reaches p.")]
MinP = Annotated[float, Field(description="Keep tokens with at least P times the probability of the best.")]
Penalty = Annotated[float, Field(description="Above 1: make tokens that occurred already less likely.")]
Seed = Annotated[int, Field(description="Seed of the random numbers.")]


def _pair(value: Any) -> Any:
    """ "cat:cats" as two words."""
    if not isinstance(value, str):
        return value
    words = tuple(value.split(":"))
    if len(words) != 2 or not all(words):
        raise UsageError(f"{value!r} is not a pair; write two words with a colon between them, such as cat:cats")
    return words


Pair = Annotated[tuple[str, str], BeforeValidator(_pair)]


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


def inputs_of(function: Callable[..., Any]) -> list[str]:
    """Which of `GIVEN` a view needs."""
    return [name for name in inspect.signature(function).parameters if name in GIVEN]


def _validated(model: type[BaseModel], given: Mapping[str, Any]) -> BaseModel:
    try:
        return model.model_validate(dict(given))
    except ValidationError as error:
        raise UsageError(first_mistake(error, model)) from None


@functools.cache
def _model(function: Callable[..., Any], keyword_only: bool) -> type[BaseModel]:
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for p in inspect.signature(function).parameters.values():
        if p.name not in GIVEN and (p.kind is p.KEYWORD_ONLY or not keyword_only):
            fields[p.name] = (hints[p.name], ... if p.default is p.empty else p.default)
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)
    return create_model(function.__name__, __config__=config, **fields)
