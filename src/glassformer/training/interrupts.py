"""Ctrl-C as a wish: the loop ends at the next safe place."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

from glassformer.errors import GlassformerError


class Interrupted(GlassformerError):
    """Ctrl-C or SIGTERM, which is no mistake. The message states what is saved and how to continue."""

    prefix = ""


@contextlib.contextmanager
def polite_interrupts(*, patient: bool) -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM sets the event, and the loop ends at the next safe place; the second ends at once.

    patient: under `torchrun` one Ctrl-C arrives twice, from the terminal and from torchrun; within a second it counts
    once.
    """
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    first = 0.0

    def note(signum: int, frame: Any) -> None:
        nonlocal first
        if asked.is_set() and not (patient and time.monotonic() - first < 1.0):
            raise KeyboardInterrupt
        first = first or time.monotonic()
        asked.set()

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
