"""Stop strings, found across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Passes text on until one of the stop strings appears, also when it comes in several pieces.

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
        self.found = bool(hits)
        if hits:  # the one that is complete first, so that it does not matter where the text was cut into pieces
            safe, self.held = self.held[: min(hits)[1]], ""
            return safe
        cut = len(self.held) - max((_longest_start(stop, self.held) for stop in self.stops), default=0)
        safe, self.held = self.held[:cut], self.held[cut:]
        return safe

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        rest, self.held = self.held, ""
        return "" if self.found else rest


def _longest_start(stop: str, text: str) -> int:
    """How many characters at the end of `text` could be the beginning of `stop`."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
