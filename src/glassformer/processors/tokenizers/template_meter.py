"""What a chat template may spend: steps, processor time, characters, the size of one value.

The bounds are far above what conversations need (a thousand messages take some ten thousand steps) and low enough
that the worst template ends within about two seconds and a few hundred megabytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import ItemsView, Iterable, KeysView, ValuesView
from typing import Any

MAX_SOURCE = 1 << 16  # characters of a template: the longest that are known have 30,000
MAX_STEPS = 2_000_000
MAX_SECONDS = 2.0  # of this thread's own processor time, so that a busy machine changes nothing
MAX_TEXT = 1 << 23  # characters of one text, or of a list with all that it holds: about two million tokens
MAX_MADE = 1 << 27  # characters of all texts together, intermediate ones too
MAX_ITEMS = 100_000  # entries of one list
MAX_DEPTH = 64  # of lists in lists
MAX_BITS = 1 << 15  # of a whole number
MAX_WIDTH = 1000  # to which a number or a text is filled up

_CONTAINERS = (list, tuple, dict, ItemsView, KeysView, ValuesView)
_PERCENT_FIELD = re.compile(r"%(?:\([^)]*\))?[^%a-zA-Z]*")  # `%-10.3` of `%-10.3f`
_BRACE_FIELD = re.compile(r"\{[^{}]*")
_CHARACTERS_A_STEP = 1 << 10  # long texts take time


class OverLimit(Exception):
    """A template needs more than it may have; the message names what."""


class Meter:
    """Counts what one run of a template spends, and ends it by `OverLimit`."""

    def __init__(self) -> None:
        self._steps = self._characters = self._next_look = 0
        self._end = time.thread_time() + MAX_SECONDS
        self._measured: dict[int, tuple[Any, int, int]] = {}  # kept alive, so that ids stay theirs

    def tick(self, steps: int = 1) -> None:
        """Count steps, and look at the clock now and then."""
        self._steps += steps
        if self._steps >= self._next_look:
            self._next_look = self._steps + 32
            if self._steps > MAX_STEPS:
                raise OverLimit(f"it takes more than {MAX_STEPS:,} steps")
            if time.thread_time() > self._end:
                raise OverLimit(f"it takes more than {MAX_SECONDS:g} seconds")

    def check(self, value: Any) -> Any:
        """Count a value that was made, refuse one that is too large, and give it back. A container is measured with all
        that it holds, so that to print, compare or hash it takes bounded time."""
        if isinstance(value, str):
            self.reserve(len(value))
            self._characters += len(value)
            self.tick(1 + len(value) // _CHARACTERS_A_STEP)
            if self._characters > MAX_MADE:
                raise OverLimit(f"it makes texts of more than {MAX_MADE:,} characters in all")
        elif isinstance(value, _CONTAINERS):
            self.entries(len(value))
            self.size(value)
        return value

    def reserve(self, characters: int) -> None:
        """Refuse a text of so many characters before it is made."""
        if characters > MAX_TEXT:
            raise OverLimit(f"it makes a text or a list of more than {MAX_TEXT:,} characters")

    def entries(self, count: int) -> None:
        """Refuse a list of so many entries before it is made."""
        if count > MAX_ITEMS:
            raise OverLimit(f"it makes a list of more than {MAX_ITEMS:,} entries")

    def bits(self, count: int) -> None:
        """Refuse a whole number of so many bits before it is made."""
        if count > MAX_BITS:
            raise OverLimit(f"it calculates with numbers of more than {MAX_BITS:,} bits")

    def size(self, value: Any) -> int:
        """Characters that it takes to write a value out, about."""
        return self._measure(value)[0]

    def _measure(self, value: Any) -> tuple[int, int]:
        """(characters, how deep it is nested). What was measured once is not walked through again: a list that holds
        itself sixty times over has 2^60 characters and sixty parts."""
        if isinstance(value, str):
            return len(value) + 2, 0
        if not isinstance(value, _CONTAINERS):
            return 32, 0
        if (known := self._measured.get(id(value))) is not None:
            return known[1], known[2]
        self.tick(1 + len(value))
        characters, depth = 2, 0
        for part in (part for pair in value.items() for part in pair) if isinstance(value, dict) else value:
            inside, deep = self._measure(part)
            characters, depth = characters + 2 + inside, max(depth, deep)
            self.reserve(characters)
        if depth >= MAX_DEPTH:
            raise OverLimit(f"it nests lists more than {MAX_DEPTH} deep")
        self._measured[id(value)] = value, characters, depth + 1
        return characters, depth + 1

    def join(self, parts: Iterable[str], separator: str = "") -> str:
        """`separator.join(parts)`, counted before it is put together."""
        kept: list[str] = []
        total = 0
        for part in parts:
            total += len(part) + (len(separator) if kept else 0)
            self.reserve(total)
            kept.append(part)
            if len(kept) % 32 == 0:
                self.tick()
        return self.check(separator.join(kept))  # type: ignore[no-any-return]

    def replaced(self, text: str, old: str, new: str) -> None:
        """Refuse what `text.replace(old, new)` would make too large."""
        self.reserve(len(text) + text.count(old) * max(0, len(new) - len(old)))

    def formatted(self, form: str, values: Any) -> None:
        """Refuse what `form % values` or `form.format(*values)` would make too large."""
        fields = _PERCENT_FIELD.findall(form) + _BRACE_FIELD.findall(form)
        if any("*" in field for field in fields) or "{" in re.sub(r"\{[^{}]*\}", "", form.replace("{{", "")):
            raise OverLimit("it formats with a width out of a variable")
        if any(len(number) > 6 or int(number) > MAX_WIDTH for field in fields for number in re.findall(r"\d+", field)):
            raise OverLimit(f"it fills a text up to more than {MAX_WIDTH:,} characters")
        self.reserve(len(form) + len(fields) * (self.size(values) + MAX_WIDTH))
