"""The time at which the command started, before torch was imported."""

from __future__ import annotations

import time

_started = time.perf_counter()


def start() -> None:
    """Note that a command starts now."""
    global _started
    _started = time.perf_counter()


def started() -> float:
    """`time.perf_counter()` when the command started."""
    return _started
