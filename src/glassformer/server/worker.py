"""One thread for one engine: requests go in from anywhere, events come out to whoever asked."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from glassformer.errors import GlassformerError, UsageError
from glassformer.generation import Engine, Event, Request

Sink = Callable[[Event | BaseException], None]
"""Is called in the worker's thread with every event of a request, or with the error that ended all of them."""

MOST_WAITING = 1024  # samples that wait for a row
MOST_ERRANDS = 64  # that wait for the engine's thread

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Overloaded(GlassformerError):
    """So many requests wait that another one would wait for minutes."""


class Worker:
    """Runs an engine in a thread of its own: it sleeps while there is nothing to do.

    A request that fails gets its error, and the others go on. Should the engine itself fail, which is a fault of ours,
    all requests under way get the error, and a new engine is made. The log has the traceback of both.

    counts: requests, tokens of prompts and tokens written so far, for `/metrics`.
    """

    def __init__(self, make_engine: Callable[[], Engine]):
        self._make_engine = make_engine
        self.engine = make_engine()
        self.counts = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "cancelled": 0, "failed": 0}
        self._inbox: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._sinks: dict[int, tuple[Sink, int]] = {}  # of a request: who is told, and how many samples go on
        self._errands: deque[tuple[Generator[None, None, Any], Future[Any]]] = deque()
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
                self._note(error, "a request failed before it began")
                future.set_exception(error)
                return
            self._sinks[number] = sink, request.samples
            self.counts["requests"] += 1
            self.counts["prompt_tokens"] += len(request.ids)
            future.set_result(number)

        if self.running:
            self._inbox.put(take)
        else:
            future.set_exception(Overloaded("the server is being stopped; ask another one"))
        return future

    def cancel(self, number: int) -> None:
        """Forget a request before the engine's next step; one that is done is nothing to worry about."""

        def take() -> None:
            if self._sinks.pop(number, None) is not None:
                self.engine.cancel(number)
                self.counts["cancelled"] += 1

        self._inbox.put(take)

    def between(self, errand: Generator[None, None, T]) -> Future[T]:
        """Let the thread that owns the model run something else with it, to the next `yield` after every step of the
        engine, one errand after the other. The future has what it returns, or raises; cancelling it ends the errand."""
        future: Future[T] = Future()

        def take() -> None:
            if self._stopping or len(self._errands) >= MOST_ERRANDS:
                future.set_exception(Overloaded("the server is too busy to look inside; try again later"))
            else:
                self._errands.append((errand, future))

        if self.running:
            self._inbox.put(take)
        else:
            future.set_exception(Overloaded("the server is being stopped; ask another one"))
        return future

    def stop(self, *, timeout: float | None = 30.0) -> None:
        """Finish what was begun, take nothing new, and end the thread; after `timeout` seconds it is left behind."""
        self._stopping = True
        self._inbox.put(None)
        self._thread.join(timeout)

    def _run(self) -> None:
        while True:
            try:
                self._take_all(wait=not (self.engine.busy or self._errands))
                if self._stopping and not (self.engine.busy or self._errands):
                    return
                self._run_errand()
                events = self.engine.step()
            except Exception as error:  # no request waits for ever because of a fault of ours
                self._give_up(error)
                continue
            for event in events:
                self._tell(event)

    def _run_errand(self) -> None:
        """One piece of the errand that waits longest."""
        if not self._errands:
            return
        errand, future = self._errands[0]
        with contextlib.suppress(InvalidStateError):  # cancelled in this very moment
            try:
                if not future.cancelled():
                    next(errand)
                    return
                errand.close()
            except StopIteration as end:
                future.set_result(end.value)
            except Exception as error:
                future.set_exception(error)
        self._errands.popleft()

    def _give_up(self, error: Exception) -> None:
        """End all requests with this error, and begin anew with an empty engine."""
        _log.error("the engine failed; %d requests end with it", len(self._sinks), exc_info=error)
        self.counts["failed"] += len(self._sinks)
        while self._sinks:
            sink, _ = self._sinks.popitem()[1]
            self._call(sink, error)
        self.engine = self._make_engine()

    def _tell(self, event: Event) -> None:
        if event.request not in self._sinks:
            return
        sink, going_on = self._sinks[event.request]
        if event.error is not None:
            del self._sinks[event.request]
            self.counts["failed"] += 1
            self._note(event.error, f"request {event.request} failed")
            self._call(sink, event.error)
            return
        if event.piece is not None:
            self.counts["completion_tokens"] += 1
            if event.piece.finish_reason is not None:
                going_on -= 1
                self._sinks[event.request] = sink, going_on
                if not going_on:
                    del self._sinks[event.request]
        if not self._call(sink, event):
            self._sinks.pop(event.request, None)
            self.engine.cancel(event.request)

    def _call(self, sink: Sink, event: Event | BaseException) -> bool:
        """Hand an event on; whether that went well."""
        try:
            sink(event)
        except RuntimeError:  # the event loop of the request is closed
            return False
        except Exception:
            _log.exception("an event of a request could not be handed on")
            return False
        return True

    @staticmethod
    def _note(error: Exception, what: str) -> None:
        """Into the log with its traceback, unless the request itself was wrong: its answer says so."""
        if not isinstance(error, UsageError):
            _log.error("%s", what, exc_info=error)

    def _take_all(self, *, wait: bool) -> None:
        while True:
            try:
                order: Any = self._inbox.get(block=wait)
            except queue.Empty:
                return
            wait = False
            if order is not None:
                order()
