"""Reward functions: what scores an answer.

    def short(completions, **columns):                    # in my_rewards.py: task.reward=my_rewards:short
        return [-len(text) for text in completions]

The folder of a reward model (task.kind=reward) is a reward function too.

A function is called as in TRL: reward(prompts=..., completions=..., completion_ids=..., **columns), with those of them
that its signature takes, and gives one number for each completion. A prompt and a completion are texts, or lists of
messages where the row is a chat. The columns are the other fields of the rows, as lists.
"""

from __future__ import annotations

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassformer import plugins
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.tasks.reward_model import reward_model

RewardFunction = Callable[..., Sequence[float]]
"""reward(prompts=, completions=, **columns) -> one number for each completion, as in TRL."""
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


def exact(completions: Sequence[Any], answer: Sequence[Any]) -> list[float]:
    """1 where a completion is the row's `answer`, but for spaces around it; else 0."""
    return [float(_text(c).strip() == _answer(a)) for c, a in zip(completions, answer, strict=True)]


def contains(completions: Sequence[Any], answer: Sequence[Any]) -> list[float]:
    """1 where a completion contains the row's `answer`; else 0."""
    return [float(_answer(a) in _text(c)) for c, a in zip(completions, answer, strict=True)]


def last_number(completions: Sequence[Any], answer: Sequence[Any]) -> list[float]:
    """1 where the last number of a completion is the row's `answer`, as in GSM8K; else 0."""
    found = [_NUMBER.findall(_text(c)) for c in completions]
    return [float(bool(f) and _number(f[-1]) == _number(_answer(a))) for f, a in zip(found, answer, strict=True)]


REWARDS: dict[str, RewardFunction] = {"exact": exact, "contains": contains, "last_number": last_number}
"""Reward functions by name."""


def _text(completion: Any) -> str:
    return completion if isinstance(completion, str) else str(completion[-1].get("content") or "")


def _answer(value: Any) -> str:
    if value is None:
        raise ValueError("the row has no field `answer`")
    return str(value).strip()


def _number(text: str) -> float | str:
    try:
        return float(text.replace(",", ""))
    except ValueError:
        return text.strip()


def reward_function(name: str, device: str = "cpu") -> RewardFunction:
    """A function of `REWARDS`, the one that `module:function` names, or that a reward model's folder is.

    Raises:
        UsageError: there is none, it cannot be imported, or the folder holds no reward model.
    """
    if name in REWARDS:
        return REWARDS[name]
    module, colon, function = name.partition(":")
    if Path(name).exists():
        return reward_model(name, device)
    if not colon:
        hint = did_you_mean(name, REWARDS)
        raise UsageError(
            f"task.reward={name!r}: {hint}; or name a function as module:function, or a reward model's run"
        )
    if module.partition(".")[0] in sys.stdlib_module_names:
        raise UsageError(f"task.reward={name}: {module} belongs to Python; name a function in a module of your own")
    plugins.load_plugin(module, "task.reward:")  # from the current folder too; runs record it
    found = getattr(sys.modules[module], function, None)
    if found is None:
        raise UsageError(
            f"task.reward={name}: {module} has no {function}; {did_you_mean(function, dir(sys.modules[module]))}"
        )
    if not callable(found):
        raise UsageError(f"task.reward={name} is a {type(found).__name__}, not a function")
    return found  # type: ignore[no-any-return]


def rewards_of_rollouts(function: RewardFunction, rollouts: Sequence[Any], name: str = "reward") -> Tensor:
    """One reward for each `RollOut`, (B,) fp32.

    Raises:
        DataError: the function raises, or gives the wrong number of rewards, or something that is no finite number;
            the row is named.
    """
    taken, needed = _parameters(function)
    given = _arguments(rollouts, taken)
    if missing := [key for key in needed if key not in given]:
        raise DataError(
            f"{rollouts[0].row.place}: {name} needs the field {missing[0]}, and the rows have "
            f"{', '.join(rollouts[0].row.columns) or 'none beside the prompt'}; add it to every row"
        )
    try:
        values = function(**given)
    except Exception as error:
        place = _culprit(function, rollouts, taken)
        raise DataError(f"{place}: {name} raised {type(error).__name__}: {error}; mend the reward function") from error
    try:
        values = list(values)
    except TypeError:
        raise DataError(f"{name} gave a {type(values).__name__}; it must give a list of numbers") from None
    if len(values) != len(rollouts):
        raise DataError(
            f"{_span(rollouts)}: {name} gave {len(values)} rewards for {len(rollouts)} completions; give one for each"
        )
    found = []
    value: Any
    for value, r in zip(values, rollouts, strict=True):
        number = value.item() if getattr(value, "size", 0) == 1 or isinstance(value, Tensor) else value
        if isinstance(number, str) or not isinstance(number, (bool, int, float)) or not math.isfinite(number):
            raise DataError(f"{r.row.place}: {name} gave {number!r} for {r.text[:40]!r}; give a finite number")
        found.append(float(number))
    return torch.tensor(found, dtype=torch.float32)


def _parameters(function: RewardFunction) -> tuple[frozenset[str] | None, list[str]]:
    """The names of the arguments that a function takes (None: all), and of those that it cannot do without."""
    try:
        parameters = [*inspect.signature(function).parameters.values()]
    except (TypeError, ValueError):  # written in C
        return None, []
    named = [p for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    takes_all = any(p.kind is p.VAR_KEYWORD for p in parameters)
    return None if takes_all else frozenset(p.name for p in named), [p.name for p in named if p.default is p.empty]


def _arguments(rollouts: Sequence[Any], taken: frozenset[str] | None) -> Mapping[str, Any]:
    found: dict[str, list[Any]] = {}
    for key in sorted({key for r in rollouts for key in r.row.columns}):
        found[key] = [r.row.columns.get(key) for r in rollouts]
    if clash := sorted({"prompts", "completions", "completion_ids"} & found.keys()):
        raise DataError(f"{rollouts[0].row.place}: the field {clash[0]} is what a reward function gets; rename it")
    found["prompts"] = [r.row.prompt for r in rollouts]
    found["completions"] = [[{"role": "assistant", "content": r.text}] if r.row.is_chat else r.text for r in rollouts]
    found["completion_ids"] = [list(r.ids) for r in rollouts]
    return {key: value for key, value in found.items() if taken is None or key in taken}


def _culprit(function: RewardFunction, rollouts: Sequence[Any], taken: frozenset[str] | None) -> str:
    """The place of the first row that a function raises for when it is given that row alone."""
    for r in rollouts:
        try:
            function(**_arguments([r], taken))
        except Exception:
            return r.row.place
    return _span(rollouts)


def _span(rollouts: Sequence[Any]) -> str:
    first, last = rollouts[0].row.place, rollouts[-1].row.place
    return first if first == last else f"{first} to {last}"
