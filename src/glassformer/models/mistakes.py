"""What pydantic complains about, in our own words: one line that names the value, the rule and the next step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from glassformer.errors import UsageError, did_you_mean, one_line

if TYPE_CHECKING:
    from typing_extensions import Self


LIMITS = {
    "ge": "is too small; use {} or more",
    "gt": "is too small; use more than {}",
    "le": "is too large; use {} or less",
    "lt": "is too large; use less than {}",
}


class Checked(BaseModel):
    """A frozen model that refuses unknown keys; `make` raises the first mistake as one `UsageError` of one line."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    _section: ClassVar[str] = "model."  # what stands before the name of a key in a message

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """Build one; every mistake is one `UsageError` of one line."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise UsageError(first_mistake(error, cls, prefix=cls._section)) from None

    @classmethod
    def make_fields(cls) -> dict[str, FieldInfo]:
        """What `make` takes."""
        return dict(cls.model_fields)


def first_mistake(error: ValidationError, model: type[BaseModel], prefix: str = "") -> str:
    """The first of pydantic's complaints as one line in our own words."""
    first = error.errors()[0]
    where = prefix + ".".join(one_line(part, most=100) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"unknown key {where}; {did_you_mean(str(first['loc'][-1]), model.model_fields)}"
    if first["type"] == "missing":
        return f"{where} is missing; give it a value"
    cause = first.get("ctx", {}).get("error")
    if isinstance(cause, UsageError):
        return str(cause)
    return f"{where}={one_line(repr(first['input']), most=100)} {_rule(first, where)}"


def _rule(mistake: Any, where: str) -> str:
    """What the rule is and what to do, for one of pydantic's complaints."""
    kind, facts = mistake["type"], mistake.get("ctx", {})
    for name, rule in LIMITS.items():
        if name in facts:
            limit = facts[name]
            return rule.format(int(limit) if float(limit).is_integer() else limit)  # 1, not 1.0
    if kind == "literal_error":
        return f"is unknown; use {facts['expected']}".replace("'", "")
    if kind == "finite_number":
        return "is not a finite number; give one"
    for start, message in (
        ("int", f"is not a whole number; give one, for example {where}=4"),
        ("float", f"is not a number; give one, for example {where}=0.1"),
        ("bool", f"is neither yes nor no; use {where}=true or {where}=false"),
        ("string_type", "is not a text; put it in quotes"),
        ("string_too_short", "is empty; give it a value, or leave it out"),
        ("model", f"is one value where a table is needed: a line [{where}], and below it a line for each key"),
    ):
        if kind.startswith(start):
            return message
    return f"does not fit: {mistake['msg'][0].lower()}{mistake['msg'][1:]}"
