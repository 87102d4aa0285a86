"""What holds where a caller asks for nothing: what the model's folder says, then what the command or the call has."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassformer.generation.sampling import Sampling
from glassformer.models import settings_of

NEW_TOKENS = 200


def sampling_of(model: Any, given: Mapping[str, Any], otherwise: Mapping[str, Any] | None = None) -> Sampling:
    """How tokens are drawn: the fields that are `given` (None: not), else the folder's, else those of `otherwise`, else
    those of `Sampling`.

    Raises:
        UsageError: a value is out of range.
    """
    asked = {name: value for name, value in given.items() if value is not None}
    return Sampling(**{**(otherwise or {}), **settings_of(model).sampling_defaults(), **asked})


def new_tokens_of(model: Any, n_prompt: int, given: int | None, otherwise: int = NEW_TOKENS) -> int:
    """How many tokens are written at most behind a prompt of `n_prompt` tokens: in the same order."""
    return given if given is not None else settings_of(model).default_new_tokens(n_prompt, otherwise)


def from_the_folder(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that the folder sets and that nothing `given` overrides, to be shown: by name and value."""
    settings = settings_of(model)
    lengths = {"max_new_tokens": settings.max_new_tokens}
    if settings.max_new_tokens is None:
        lengths["max_length"] = settings.max_length
    found = {**settings.sampling_defaults(), **{name: value for name, value in lengths.items() if value is not None}}
    overridden = {name for name, value in given.items() if value is not None}
    if "max_new_tokens" in overridden:
        overridden.add("max_length")
    return {name: value for name, value in found.items() if name not in overridden}
