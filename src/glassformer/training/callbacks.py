"""What follows a run: the display, the report, trackers, and classes of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glassformer.training.run_folder import RunFolder


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


class RunLog:
    """Writes the lines of a run's logs, in the main process alone, and passes each to the callbacks."""

    def __init__(self, run: RunFolder, callbacks: tuple[Callback, ...], *, is_main: bool):
        self.run, self.callbacks, self.is_main = run, callbacks, is_main

    def step(self, record: dict[str, Any]) -> None:
        self._append(self.run.metrics, record)
        for callback in self.callbacks:
            callback.on_step(record)

    def sample(self, record: dict[str, Any]) -> None:
        self._append(self.run.samples, record)
        for callback in self.callbacks:
            callback.on_sample(record["step"], record["text"])

    def diagnostics(self, record: dict[str, Any]) -> None:
        self._append(self.run.diagnostics, record)
        for callback in self.callbacks:
            callback.on_diagnostics(record)

    def event(self, record: dict[str, Any]) -> None:
        self._append(self.run.events, record)
        for callback in self.callbacks:
            callback.on_event(record)

    def _append(self, file: Path, record: dict[str, Any]) -> None:
        if self.is_main:
            self.run.append(file, record)
