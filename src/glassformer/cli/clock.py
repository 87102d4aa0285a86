"""When the command began: what a person waits for begins there, before torch is imported."""

from __future__ import annotations

import time

_started = time.perf_counter()


def start() -> None:
    """A command begins."""
    global _started
    _started = time.perf_counter()


def started() -> float:
    """`time.perf_counter()` when the command began."""
    return _started
