"""Settings of sampling, and their defaults: what is given, else those of the model's folder, else what the command or
the call has."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from glassformer.errors import UsageError
from glassformer.models import settings_of

NEW_TOKENS = 200


@dataclass(frozen=True)
class Sampling:
    """How the next token is sampled. The filters work in the order of the fields, each on what the one before kept.

    Raises:
        UsageError: a value is outside its range.
    """

    temperature: float = 1.0  # divides the logits; 0 takes the most likely token
    top_k: int = 0  # keep the k most likely; 0: all
    top_p: float = 1.0  # keep the fewest whose probability reaches p (Holtzman et al. 2019, arxiv.org/abs/1904.09751)
    min_p: float = 0.0  # keep those at least min_p times as likely as the best (Nguyen et al. 2024, 2407.01082)
    repetition_penalty: float = 1.0  # before the temperature: lowers tokens that came already (Keskar 2019, 1909.05858)
    seed: int = 0  # sample i of a prompt has its own generator, seeded `seed + i`: the same alone or in a batch

    def __post_init__(self) -> None:
        for name, ok, rule in (
            ("temperature", 0 <= self.temperature < math.inf, "0 (most likely token) or more"),
            ("top_k", self.top_k >= 0, "0 (off) or a number of tokens"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1 (off)"),
            ("min_p", 0 <= self.min_p <= 1, "between 0 (off) and 1"),
            ("repetition_penalty", 0 < self.repetition_penalty < math.inf, "above 0; 1 is off, 1.1 is mild"),
            ("seed", -(2**63) <= self.seed < 2**63, "a 64-bit integer"),
        ):
            if not ok:
                raise UsageError(f"{name}={getattr(self, name)} is out of range; use {rule}")


def sampling_of(model: Any, given: Mapping[str, Any], otherwise: Mapping[str, Any] | None = None) -> Sampling:
    """The fields that are `given` (None: not), else the folder's, else those of `otherwise`, else the defaults.

    Raises:
        UsageError: a value is out of range.
    """
    set_here = {name: value for name, value in given.items() if value is not None}
    return Sampling(**{**(otherwise or {}), **settings_of(model).sampling_defaults(), **set_here})


def new_tokens_of(model: Any, n_prompt: int, given: int | None, otherwise: int = NEW_TOKENS) -> int:
    """How many tokens are generated at most after a prompt of `n_prompt` tokens: in the same order."""
    return given if given is not None else settings_of(model).default_new_tokens(n_prompt, otherwise)


def from_the_folder(model: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults that the model's folder sets and that nothing `given` overrides, by name."""
    settings = settings_of(model)
    lengths = {"max_new_tokens": settings.max_new_tokens}
    if settings.max_new_tokens is None:
        lengths["max_length"] = settings.max_length
    found = {**settings.sampling_defaults(), **{name: value for name, value in lengths.items() if value is not None}}
    overridden = {name for name, value in given.items() if value is not None}
    if "max_new_tokens" in overridden:
        overridden.add("max_length")
    return {name: value for name, value in found.items() if name not in overridden}
