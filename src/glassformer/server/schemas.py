"""What all bodies of the API are made of: fields that are checked and bounded. Each field of a request is one of three;
others are errors:

    applied     a field of the body
    harmless    about the client, the bill or the speed: accepted without effect on the answer
    inert       not supported, and so accepted only with the values that request nothing

`openai_schemas.py` has the bodies under `/v1`, `message_schemas.py` the turns and tools of a chat, and
`inspect_schemas.py` the bodies under `/api`. Our own fields: top_k, min_p, repetition_penalty.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WrapValidator, model_validator
from pydantic_core import PydanticCustomError

from glassformer.errors import did_you_mean, one_line

MAX_TOKENS = 1 << 16  # of a prompt, and of an answer
MAX_TEXTS = 256
MAX_CHARACTERS = 1 << 20


def field_error(name: str, message: str) -> PydanticCustomError:
    """An error about one field, raised by a validator of the whole body."""
    return PydanticCustomError("field", "{message}", {"message": message, "param": one_line(name) or "''"})


def shape(words: str) -> WrapValidator:
    """For a field of several possible types: one message instead of one for each type."""

    def check(value: Any, handler: Callable[[Any], Any]) -> Any:
        try:
            return handler(value)
        except ValidationError:
            raise PydanticCustomError("shape", "{words}", {"words": f"give {words}"}) from None

    return WrapValidator(check)


class Strict(BaseModel):
    """An object of known fields. Numbers are finite numbers and not texts of digits; null is a field not given."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)
    inert: ClassVar[dict[str, tuple[tuple[Any, ...], str]]] = {}
    harmless: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _applied_fields(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given  # pydantic reports it
        fields = {field.alias or name for name, field in cls.model_fields.items()}
        known = {*fields, *cls.inert, *cls.harmless}
        for name, value in given.items():
            if name not in known:
                raise field_error(name, f"there is no such field here; {did_you_mean(name, known)}")
            if name in cls.inert and value is not None:
                values, instead = cls.inert[name]
                if value not in values:
                    raise field_error(name, f"is not supported; {instead}")
        return {name: value for name, value in given.items() if name in fields}


Text = Annotated[str, Field(max_length=MAX_CHARACTERS)]
Token = Annotated[int, Field(ge=0, lt=1 << 31)]
Tokens = Annotated[list[Token], Field(min_length=1, max_length=MAX_TOKENS)]


class Body(Strict):
    """The field of every request."""

    model: Annotated[str, Field(max_length=300)] | None = None


class SamplingFields(Body):
    """The fields of `Sampling`. The default of a field is that of the model's folder, else that of `Sampling`."""

    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    top_k: Annotated[int, Field(ge=0, lt=1 << 31)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=100)] | None = None

    def sampling_fields(self) -> dict[str, Any]:
        """These fields by name."""
        return {name: getattr(self, name) for name in SamplingFields.model_fields if name != "model"}
