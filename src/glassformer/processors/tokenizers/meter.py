"""What a chat template may spend, and the counting of it: steps, characters, processor time, the size of one value.

The bounds are far above what conversations need (a thousand messages take some ten thousand steps) and low enough
that the worst template ends within about two seconds and a few hundred megabytes.
"""

from __future__ import annotations

import re
import time
from collections.abc import ItemsView, KeysView, ValuesView
from typing import Any

MAX_SOURCE = 1 << 16
"""Characters of a template: the longest that are known have 30,000."""
MAX_STEPS = 2_000_000
MAX_SECONDS = 2.0
"""Of this thread's own processor time, so that a busy machine changes nothing."""
MAX_TEXT = 1 << 23
"""Characters of one text, the whole rendering too: about two million tokens."""
MAX_MADE = 1 << 27
"""Characters of all texts that are made on the way, put together."""
MAX_ITEMS = 100_000
"""Entries of one list."""
MAX_DEPTH = 64
MAX_BITS = 1 << 15
"""Of a whole number."""
MAX_WIDTH = 1000
"""To which a number or a text is filled up."""

_CONTAINERS = (list, tuple, dict, ItemsView, KeysView, ValuesView)
_ORDERS = re.compile(r"%(?:\([^)]*\))?[^%a-zA-Z]*")  # `%-10.3` of `%-10.3f`
_STEP_OF_TEXT = 1 << 10  # characters that count as one step more: long texts take time


class OverLimit(Exception):
    """A template asks for more than it may have; the message says of what."""


class Meter:
    """Counts what one run of a template spends, and ends it by `OverLimit`."""

    def __init__(self) -> None:
        self._steps = self._characters = self._next_look = 0
        self._end = time.thread_time() + MAX_SECONDS

    def tick(self, steps: int = 1) -> None:
        """Count steps, and look at the clock now and then."""
        self._steps += steps
        if self._steps >= self._next_look:
            self._next_look = self._steps + 32
            if self._steps > MAX_STEPS:
                raise OverLimit(f"it takes more than {MAX_STEPS:,} steps")
            if time.thread_time() > self._end:
                raise OverLimit(f"it takes more than {MAX_SECONDS:g} seconds")

    def room(self, characters: int) -> None:
        """Refuse a text of so many characters before it is made."""
        if characters > MAX_TEXT:
            raise OverLimit(f"it makes a text of more than {MAX_TEXT:,} characters")

    def entries(self, count: int) -> None:
        """Refuse a list of so many entries before it is made."""
        if count > MAX_ITEMS:
            raise OverLimit(f"it makes a list of more than {MAX_ITEMS:,} entries")

    def width(self, form: str) -> None:
        """Refuse a format with a number in it that would fill up or write out too much."""
        if any(len(number) > 6 or int(number) > MAX_WIDTH for number in re.findall(r"\d+", form)):
            raise OverLimit(f"it fills a text up to more than {MAX_WIDTH:,} characters")

    def made(self, value: Any) -> Any:
        """Count a value that was made, and give it back."""
        if isinstance(value, str):
            self.room(len(value))
            self._characters += len(value)
            self.tick(1 + len(value) // _STEP_OF_TEXT)
            if self._characters > MAX_MADE:
                raise OverLimit(f"it makes texts of more than {MAX_MADE:,} characters in all")
        elif isinstance(value, (list, dict)):
            self.entries(len(value))
            self.tick(1 + len(value))
        elif isinstance(value, tuple):  # may become a key, which takes as long as it is large inside
            self.weigh(value)
        return value

    def weigh(self, value: Any) -> Any:
        """Count what it takes to go through a value, as a comparison does, and give it back."""
        if isinstance(value, _CONTAINERS):
            self.size(value)
        else:
            self.tick()
        return value

    def size(self, value: Any, depth: int = 0) -> int:
        """Characters that it takes to write a value out, about; one that holds itself many times over is refused."""
        if isinstance(value, str):
            self.tick(1 + len(value) // _STEP_OF_TEXT)
            return len(value) + 2
        self.tick()
        if isinstance(value, int):
            return 1 + value.bit_length() // 3
        if not isinstance(value, _CONTAINERS):
            return 32
        if depth > MAX_DEPTH:
            raise OverLimit(f"it nests lists more than {MAX_DEPTH} deep")
        inside = (part for pair in value.items() for part in pair) if isinstance(value, dict) else iter(value)
        total = 2
        for part in inside:
            total += 2 + self.size(part, depth + 1)
            self.room(total)
        return total

    def emit(self, value: Any) -> str:
        """A value as the text that is printed."""
        if not isinstance(value, str):
            self.room(self.size(value))
            value = str(value)
        return self.made(value)

    def join(self, *values: Any) -> str:
        """The operator `~`."""
        texts = [self.emit(value) for value in values]
        self.room(sum(map(len, texts)))
        return self.made("".join(texts))

    def before_operator(self, operator: str, left: Any, right: Any) -> None:
        """Refuse a sum, product, power or formatted text that would be too large, before it is made."""
        self.tick()
        if operator == "%" and isinstance(left, str):
            self.formatted(left, right)
        elif operator == "+" and isinstance(left, str) and isinstance(right, str):
            self.room(len(left) + len(right))
        elif operator == "*":
            for one, other in ((left, right), (right, left)):
                if isinstance(one, str) and isinstance(other, int):
                    self.room(len(one) * max(other, 0))
                elif isinstance(one, (list, tuple)) and isinstance(other, int):
                    self.entries(len(one) * max(other, 0))
        if isinstance(left, int) and isinstance(right, int) and operator in ("*", "**"):
            bits = left.bit_length() * right if operator == "**" else left.bit_length() + right.bit_length()
            if bits > MAX_BITS:
                raise OverLimit(f"it calculates with numbers of more than {MAX_BITS:,} bits")

    def formatted(self, form: str, values: Any) -> None:
        """Refuse what `form % values` would make too large."""
        orders = " ".join(_ORDERS.findall(form))
        if "*" in orders:
            raise OverLimit("it formats with `%*`, a width out of a variable")
        self.width(orders)
        self.room(len(form) + form.count("%") * (self.size(values) + MAX_WIDTH))
