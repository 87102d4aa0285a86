"""The thread that owns a model: its engine, and jobs between the engine's steps. Requests come from any thread."""

from __future__ import annotations

import contextlib
import logging
import queue
import threading
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

import torch
from torch import Tensor

from glassformer.errors import GlassformerError, UsageError
from glassformer.generation import Engine, Event, Request
from glassformer.generation.filters import token_logits
from glassformer.layers import RowCache
from glassformer.processors.tokenizers import Tokenizer

Sink = Callable[[Event | BaseException], None]
"""Called in the worker's thread with every event of a request, or with the error that ended all of them."""

MAX_WAITING = 1024  # samples that wait for a row
MAX_JOBS = 64  # that wait for the engine's thread
CHUNK = 512  # tokens that a `LogitsReader` reads at once: how long it delays the engine's next step

T = TypeVar("T")
_log = logging.getLogger(__name__)


class Overloaded(GlassformerError):
    """So many requests wait that another one would wait for minutes."""


class Worker:
    """Runs an engine in a thread of its own, which sleeps while there is nothing to do.

    A request that fails gets its error, and the others continue. If the engine itself fails, which is a fault of ours,
    all running requests get the error, and a new engine is made. The log has the traceback of both.

    counts: requests, tokens of prompts and tokens written so far, for `/metrics`.
    """

    def __init__(self, make_engine: Callable[[], Engine]):
        self._make_engine = make_engine
        self.engine = make_engine()
        self.counts = {"requests": 0, "prompt_tokens": 0, "completion_tokens": 0, "cancelled": 0, "failed": 0}
        self._inbox: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._sinks: dict[int, tuple[Sink, int]] = {}  # by request: where its events go, and its unfinished samples
        self._jobs: deque[tuple[Generator[None, None, Any], Future[Any]]] = deque()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="glassformer-engine", daemon=True)
        self._thread.start()

    @property
    def running(self) -> bool:
        """Whether the thread is alive."""
        return self._thread.is_alive()

    def submit(self, request: Request, sink: Sink) -> Future[int]:
        """Hand in a request. The future has its number, or the engine's error about it."""

        def take(future: Future[int]) -> None:
            waiting = len(self.engine.waiting)
            if waiting + request.samples > MAX_WAITING:
                raise Overloaded(f"{waiting} samples wait already; try again later")
            try:
                number = self.engine.submit(request)
            except Exception as error:
                self._log_failure(error, "a request failed before it began")
                raise
            self._sinks[number] = sink, request.samples
            self.counts["requests"] += 1
            self.counts["prompt_tokens"] += len(request.ids)
            future.set_result(number)

        return self._enqueue(take)

    def cancel(self, number: int) -> None:
        """End a request before the engine's next step; no error if it is done already."""

        def take() -> None:
            if self._sinks.pop(number, None) is not None:
                self.engine.cancel(number)
                self.counts["cancelled"] += 1

        self._inbox.put(take)

    def run_in_engine_thread(self, job: Generator[None, None, T]) -> Future[T]:
        """Run a job in the thread that owns the model: up to its next `yield` after every step of the engine, one job
        after the other. The future has its result or its error; cancelling the future ends the job."""

        def take(future: Future[T]) -> None:
            if len(self._jobs) >= MAX_JOBS:
                raise Overloaded("the server is too busy to look inside; try again later")
            self._jobs.append((job, future))

        return self._enqueue(take)

    def stop(self, *, timeout: float | None = 30.0) -> None:
        """Finish running requests, accept no new ones, and end the thread; wait `timeout` seconds for it at most."""
        self._stopping = True
        self._inbox.put(lambda: None)
        self._thread.join(timeout)

    def _enqueue(self, take: Callable[[Future[T]], None]) -> Future[T]:
        """Let the thread call `take(future)`; what it raises becomes the future's error."""
        future: Future[T] = Future()

        def order() -> None:
            try:
                if self._stopping:
                    raise Overloaded("the server is being stopped; ask another one")
                take(future)
            except Exception as error:
                future.set_exception(error)

        self._inbox.put(order) if self.running else order()
        return future

    def _run(self) -> None:
        while True:
            try:
                self._take_orders(wait=not (self.engine.busy or self._jobs))
                if self._stopping and not (self.engine.busy or self._jobs):
                    return
                self._continue_job()
                for event in self.engine.step():
                    self._deliver(event)
            except Exception as error:  # a fault of ours, for which no request waits for ever
                self._restart(error)

    def _take_orders(self, *, wait: bool) -> None:
        with contextlib.suppress(queue.Empty):
            while True:
                self._inbox.get(block=wait)()
                wait = False

    def _continue_job(self) -> None:
        """Run the oldest job to its next `yield`."""
        if not self._jobs:
            return
        job, future = self._jobs[0]
        with contextlib.suppress(InvalidStateError):  # it was cancelled in this very moment
            try:
                if not future.cancelled():
                    next(job)
                    return
                job.close()
            except StopIteration as end:
                future.set_result(end.value)
            except Exception as error:
                future.set_exception(error)
        self._jobs.popleft()

    def _restart(self, error: Exception) -> None:
        """End all requests with this error, and continue with an empty engine."""
        _log.error("the engine failed; %d requests end with it", len(self._sinks), exc_info=error)
        self.counts["failed"] += len(self._sinks)
        while self._sinks:
            sink, _ = self._sinks.popitem()[1]
            self._call(sink, error)
        self.engine = self._make_engine()

    def _deliver(self, event: Event) -> None:
        if event.request not in self._sinks:
            return
        sink, unfinished = self._sinks[event.request]
        if event.error is not None:
            unfinished = 0
            self.counts["failed"] += 1
            self._log_failure(event.error, f"request {event.request} failed")
        elif event.piece is not None:
            self.counts["completion_tokens"] += 1
            unfinished -= event.piece.finish_reason is not None
        self._sinks[event.request] = sink, unfinished
        delivered = self._call(sink, event.error or event)
        if not (delivered and unfinished):
            del self._sinks[event.request]
        if not delivered:
            self.engine.cancel(event.request)

    def _call(self, sink: Sink, event: Event | BaseException) -> bool:
        """Pass an event on; whether that worked."""
        try:
            sink(event)
        except RuntimeError:  # the event loop of the request is closed
            return False
        except Exception:
            _log.exception("an event of a request could not be handed on")
            return False
        return True

    @staticmethod
    def _log_failure(error: Exception, what: str) -> None:
        """Log a traceback, unless the request itself was wrong, which its answer states."""
        if not isinstance(error, UsageError):
            _log.error("%s", what, exc_info=error)


class LogitsReader:
    """Reads texts with a `Decoder` and gives its logits, those that tokens are sampled from. For one thread.

    It has a cache of one row, as the engine has, so that the numbers are the engine's in 8 and 4 bits too. The last
    text stays in the cache: the next token of the same text costs that token only.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self._cache: RowCache | None = None

    def logits(self, ids: Sequence[int], positions: Sequence[int]) -> Generator[None, None, Tensor]:
        """A job: the logits at `positions` (0 is the first token) of a text, (P, V) in fp32 on the CPU, -inf for ids
        that are no tokens. Each `next` reads `CHUNK` tokens; the generator returns the logits."""
        cache, self._cache = self._cache, None  # put back at the end, if all went well
        rows: dict[int, Tensor] = {}
        known, needed = -1, max(positions) + 1
        while known < needed:
            with torch.inference_mode():  # not across `yield`: it is a state of the thread
                if known < 0:
                    cache = cache or self.model.new_row_cache(1, self.model.config.block_size)
                    cache.resize(1, max(needed, cache.capacity))
                    known = min(_shared(cache, ids), *positions)
                    cache.rewind(0, known)
                assert cache is not None
                chunk = ids[known : min(known + CHUNK, needed)]
                ids_1T = torch.tensor([list(chunk)], device=cache.tokens.device)
                hidden_1TC = self.model.hidden(ids_1T, cache=cache.rows(0, 1))
                wanted = sorted({p for p in positions if known <= p < known + len(chunk)})
                if wanted:
                    logits_1PV = self.model.logits(hidden_1TC[:, [p - known for p in wanted]])
                    logits_PV = token_logits(logits_1PV[0], self.tokenizer.vocab_size, self.tokenizer.missing_ids)
                    rows |= zip(wanted, logits_PV.cpu(), strict=True)
                known += len(chunk)
            if known < needed:
                yield
        self._cache = cache
        return torch.stack([rows[p] for p in positions])


def _shared(cache: RowCache, ids: Sequence[int]) -> int:
    """How many tokens at the beginning of a text the cache holds."""
    n = min(cache.lengths[0], len(ids))
    differs = (cache.tokens[0, :n].cpu() != torch.tensor(list(ids[:n]))).nonzero()
    return int(differs[0]) if len(differs) else n
