"""Tell: from ids to pieces of text, with what the model thought at each, and stop strings found across tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class Alternative:
    """A token that could have come, with the model's own probability for it (temperature 1, nothing cut)."""

    token: int
    text: str
    probability: float


@dataclass(frozen=True)
class Piece:
    """One generated token.

    text: what may be shown now. It lags behind when a character is not whole yet or a stop string may have begun.
    token, token_text: the id, and a printable form of it. probability: the model's own for it (temperature 1, nothing
    cut). chance: the probability that it had in the draw, after temperature and filters. alternatives: the model's
    most likely tokens, best first, as many as were asked for. sample: which of several samples it belongs to.
    """

    text: str
    token: int
    token_text: str
    probability: float
    chance: float
    alternatives: list[Alternative] = field(default_factory=list)
    sample: int = 0
    finish_reason: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class StopStrings:
    """Lets text through until one of the stop strings appears, also when it comes in several pieces.

    >>> stop = StopStrings(["END"])
    >>> stop.push("all is well E"), stop.push("N"), stop.push("D of it"), stop.found
    ('all is well ', '', '', True)
    """

    def __init__(self, stops: Sequence[str]):
        self.stops = [stop for stop in stops if stop]
        self.held = ""
        self.found = False

    def push(self, text: str) -> str:
        """Take new text; return what is certainly before any stop string."""
        if self.found:
            return ""
        self.held += text
        hits = [(at + len(stop), at) for stop in self.stops if (at := self.held.find(stop)) >= 0]
        if hits:  # the one that is complete first, so that it does not matter where the text was cut into pieces
            self.found = True
            safe, self.held = self.held[: min(hits)[1]], ""
            return safe
        keep = max((_longest_start(stop, self.held) for stop in self.stops), default=0)
        cut = len(self.held) - keep
        safe, self.held = self.held[:cut], self.held[cut:]
        return safe

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        rest, self.held = self.held, ""
        return "" if self.found else rest


def _longest_start(stop: str, text: str) -> int:
    """How many characters at the end of `text` could be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
