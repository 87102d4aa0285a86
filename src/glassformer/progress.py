"""Progress of long work: a bar on a terminal, a plain line now and then elsewhere, nothing for what is quick."""

from __future__ import annotations

import sys
import time
from typing import Any

QUIET_SECONDS = 1.0  # work that ends sooner shows nothing
LINE_SECONDS = 10.0  # between plain lines


class Progress:
    """`with Progress("preparing my.txt", total_bytes) as bar: bar.advance(n)`; writes to standard error.

    unit: what is counted, where it is not bytes. rich is imported only once the work has lasted a second and a terminal
    watches.
    """

    def __init__(self, what: str, total: int | None, *, enabled: bool = True, unit: str = ""):
        self.what, self.total, self.enabled, self.unit = what, total, enabled, unit
        self.done = 0
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._began = self._printed = time.monotonic()
        return self

    def advance(self, count: int) -> None:
        """Count `count` more as done."""
        self.done += count
        if not self.enabled or (now := time.monotonic()) - self._began < QUIET_SECONDS:
            return
        if not sys.stderr.isatty():
            if now - self._printed >= LINE_SECONDS:
                self._printed = now
                print(self._line(now), file=sys.stderr, flush=True)
        elif self._bar is None:
            self._start_bar()
        else:
            self._bar.update(self._task, completed=self.done)

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, now: float) -> str:
        speed = self.done / (now - self._began)
        left = f", {(self.total - self.done) / speed:.0f} s left" if self.total and speed else ""
        if self.unit:
            return f"{self.what}: {self.done:,}{f' of {self.total:,}' if self.total else ''} {self.unit}{left}"
        share = f" of {self.total / 1e6:,.0f} ({100 * self.done / self.total:.0f} %)" if self.total else ""
        return f"{self.what}: {self.done / 1e6:,.0f}{share} MB at {speed / 1e6:.1f} MB/s{left}"

    def _start_bar(self) -> None:
        from rich import progress
        from rich.console import Console

        counts: list[Any] = [progress.DownloadColumn(), progress.TransferSpeedColumn()]
        columns = [
            progress.TextColumn("{task.description}"),
            progress.BarColumn(),
            *([progress.MofNCompleteColumn()] if self.unit else counts),
            progress.TimeRemainingColumn(),
        ]
        self._bar = progress.Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task(self.what, total=self.total, completed=self.done)
        self._bar.start()
