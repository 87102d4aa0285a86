"""Patterns as text, for recipes and model folders: `window(64) | sinks(4)`.

either  =  both { "|" both }            `&` binds tighter, both join from the left
both    =  one { "&" one }
one     =  "(" either ")"  |  name [ "(" size ")" ]
"""

from __future__ import annotations

import dataclasses
import re

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers.patterns import PATTERNS, Documents, Edges, Lengths, Pattern

_OF_TENSORS = (Documents, Edges, Lengths)
_EXAMPLE = "for example: window(64) | sinks(4)"
_LONGEST = 200  # characters: nobody needs more, and the reader goes one call deeper with each parenthesis


def parse_pattern(text: str) -> Pattern:
    """The pattern that a text says; `str(pattern)` is the way back.

    >>> parse_pattern("causal & (window(64) | sinks(4))")
    Both(left=Causal(), right=Either(left=Window(width=64), right=Sinks(n=4)))
    >>> str(parse_pattern("window(64)|sinks( 4 )"))
    'window(64) | sinks(4)'

    Raises `UsageError`, one line, for anything else.
    """
    return _Reader(text).pattern()


class _Reader:
    def __init__(self, text: str):
        if len(text) > _LONGEST:
            raise UsageError(f"a pattern of {len(text):,} characters is too long; at most {_LONGEST}, {_EXAMPLE}")
        self.text = text
        self.words = [*re.finditer(r"[a-z_]+|\d+|\S", text, re.IGNORECASE | re.ASCII)]
        self.at = 0

    def pattern(self) -> Pattern:
        pattern = self._either()
        if self._next():
            raise self._unexpected("& or |")
        return pattern

    def _either(self) -> Pattern:
        pattern = self._both()
        while self._take("|"):
            pattern = pattern | self._both()
        return pattern

    def _both(self) -> Pattern:
        pattern = self._one()
        while self._take("&"):
            pattern = pattern & self._one()
        return pattern

    def _one(self) -> Pattern:
        if self._take("("):
            pattern = self._either()
            self._expect(")")
            return pattern
        name = self._next().lower()
        if not name[:1].isalpha():
            raise self._unexpected("the name of a pattern")
        if name not in PATTERNS:
            raise UsageError(f"pattern {self.text!r}: {name!r} is unknown; {did_you_mean(name, PATTERNS)}")
        kind = PATTERNS[name]
        if kind in _OF_TENSORS:
            raise UsageError(
                f"pattern {self.text!r}: {name} holds a tensor, which text cannot say; make {kind.__name__} in Python"
            )
        self.at += 1
        if not dataclasses.fields(kind):  # type: ignore[arg-type]
            return kind()
        self._expect("(")
        if not self._next().isdigit():
            raise self._unexpected(f"the size of {name}")
        size = int(self._next())
        self.at += 1
        self._expect(")")
        return kind(size)  # type: ignore[call-arg]

    def _next(self) -> str:
        """The word that comes, "" at the end."""
        return self.words[self.at][0] if self.at < len(self.words) else ""

    def _take(self, word: str) -> bool:
        took = self._next() == word
        self.at += took
        return took

    def _expect(self, word: str) -> None:
        if not self._take(word):
            raise self._unexpected(word)

    def _unexpected(self, wanted: str) -> UsageError:
        found = f"{self._next()!r} at character {self.words[self.at].start() + 1}" if self._next() else "the end"
        return UsageError(f"pattern {self.text!r}: expected {wanted}, found {found}; {_EXAMPLE}")
