"""One thread for one engine: requests go in from anywhere, events come out to whoever asked."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from glassformer.errors import GlassformerError
from glassformer.generation import Engine, Event, Request

Sink = Callable[[Event | BaseException], None]
"""Is called in the worker's thread with every event of a request, or with the error that ended all of them."""

MOST_WAITING = 1024  # samples that wait for a row


class Overloaded(GlassformerError):
    """So many requests wait that another one would wait for minutes."""


class Worker:
    """Runs an engine in a thread of its own: it sleeps while there is nothing to do. If the engine fails, which is a
    fault of ours, all who wait are told, and a new engine is made.

    counts: requests, tokens of prompts and tokens written so far, for `/metrics`.
    """

    def __init__(self, make_engine: Callable[[], Engine]):
        self._make_engine = make_engine
        self.engine = make_engine()
        self.counts = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "cancelled": 0}
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._sinks: dict[int, tuple[Sink, int]] = {}  # of a request: who is told, and how many samples go on
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="glassformer-engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def submit(self, request: Request, sink: Sink) -> Future[int]:
        """Hand in a request; the future has its number, or the engine's complaint about it."""
        future: Future[int] = Future()

        def take() -> None:
            if self._stopping:
                future.set_exception(Overloaded("the server is being stopped; ask another one"))
                return
            if len(self.engine.waiting) + request.samples > MOST_WAITING:
                future.set_exception(Overloaded(f"{len(self.engine.waiting)} samples wait already; try again later"))
                return
            try:
                number = self.engine.submit(request)
            except Exception as error:
                future.set_exception(error)
                return
            self._sinks[number] = sink, request.samples
            self.counts["requests"] += 1
            self.counts["prompt_tokens"] += len(request.ids)
            future.set_result(number)

        if self.running:
            self._inbox.put(take)
        else:
            take()
        return future

    def cancel(self, number: int) -> None:
        """Forget a request before the engine's next step; one that is done is nothing to worry about."""

        def take() -> None:
            if self._sinks.pop(number, None) is not None:
                self.engine.cancel(number)
                self.counts["cancelled"] += 1

        self._inbox.put(take)

    def stop(self, *, timeout: float | None = 30.0) -> None:
        """Finish what was begun, take nothing new, and end the thread; after `timeout` seconds it is left behind."""
        self._stopping = True
        self._inbox.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                self._take_all(wait=not self.engine.busy)
                if self._stopping and not self.engine.busy:
                    return
                events = self.engine.step()
            except Exception as error:  # nobody waits for ever because of a fault of ours
                self._give_up(error)
                continue
            for event in events:
                try:
                    self._tell(event)
                except RuntimeError:  # the event loop of whoever asked is closed
                    self._sinks.pop(event.request, None)
                    self.engine.cancel(event.request)

    def _give_up(self, error: Exception) -> None:
        """Tell everybody, and begin anew with an empty engine."""
        sinks, self._sinks = list(self._sinks.values()), {}
        self.engine = self._make_engine()
        for sink, _ in sinks:
            with contextlib.suppress(RuntimeError):  # as above
                sink(error)

    def _tell(self, event: Event) -> None:
        if event.request not in self._sinks:
            return
        sink, going_on = self._sinks[event.request]
        if event.piece is not None:
            self.counts["completion_tokens"] += 1
            if event.piece.finish_reason is not None:
                going_on -= 1
                self._sinks[event.request] = sink, going_on
                if not going_on:
                    del self._sinks[event.request]
        sink(event)

    def _take_all(self, *, wait: bool) -> None:
        while True:
            try:
                order: Any = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if order is not None:
                order()
