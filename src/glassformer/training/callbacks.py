"""What follows a run: the display, the report, trackers, and classes of your own."""

from __future__ import annotations

from typing import Any


class Callback:
    """Called by a `Trainer`. A subclass overrides the methods that it needs."""

    def on_start(self, trainer: Any) -> None:
        """Before the first step, also of a resumed run. trainer: the `Trainer`."""

    def on_step(self, record: dict[str, Any]) -> None:
        """After each step, with its line of metrics.jsonl."""

    def on_sample(self, step: int, text: str) -> None:
        """When the task has drawn a sample, as text."""

    def on_diagnostics(self, record: dict[str, Any]) -> None:
        """At evaluations, with the line of diagnostics.jsonl: gradient and update of every parameter."""

    def on_event(self, record: dict[str, Any]) -> None:
        """When something happened that a person should know, with its line of events.jsonl."""

    def on_end(self) -> None:
        """When the loop ends, with or without an error."""
