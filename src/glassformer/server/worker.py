"""A served model: its name and checks (`ModelHandle`), the thread that runs it (`Worker`), one client's requests in
that thread (`Submission`)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from typing import Any, TypeVar

from glassformer.errors import UsageError
from glassformer.generation import Engine, Event, Piece, Request, commands_for, from_the_folder
from glassformer.generation.generate import prompt_ids
from glassformer.generation.requests import check_ids
from glassformer.generation.tools import ToolForm
from glassformer.generation.transcribe import check_speech
from glassformer.hub import Bundle
from glassformer.models import Decoder, Encoder, settings_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.middleware import APIError

Sink = Callable[[Event | BaseException], None]
"""Called in the worker's thread with every event of a request, or with the error that ended it."""

MAX_WAITING = 1024  # samples that wait for a row
MAX_JOBS = 64  # that wait for the engine's thread

T = TypeVar("T")
_log = logging.getLogger(__name__)


def overloaded(message: str) -> APIError:
    """The error for a request that would have to wait for minutes."""
    return APIError(503, message, code="overloaded")


class Worker:
    """Runs an engine in a thread of its own, which sleeps while there is nothing to do.

    A request that fails gets its error, and the others continue. If the engine itself fails, all running requests get
    the error, and a new engine is made. The log has the traceback of both.

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
        """Submit a request. The future has its number, or the error of the engine or an `APIError` (too many wait)."""

        def take(future: Future[int]) -> None:
            waiting = len(self.engine.waiting)
            if waiting + request.samples > MAX_WAITING:
                raise overloaded(f"{waiting} samples wait already; try again later")
            try:
                number = self.engine.submit(request)
            except Exception as error:
                _log_failure(error, "a request failed before it began")
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
                raise overloaded("the server is too busy to look inside; try again later")
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
                    raise overloaded("the server is being stopped; use another one")
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
            except Exception as error:  # a fault of ours: no request may wait for ever because of it
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
        with contextlib.suppress(InvalidStateError):  # the future was cancelled in this very moment
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
            _call(sink, error)
        self.engine = self._make_engine()

    def _deliver(self, event: Event) -> None:
        if event.request not in self._sinks:
            return
        sink, unfinished = self._sinks[event.request]
        if event.error is not None:
            unfinished = 0
            self.counts["failed"] += 1
            _log_failure(event.error, f"request {event.request} failed")
        elif event.piece is not None:
            self.counts["completion_tokens"] += 1
            unfinished -= event.piece.finish_reason is not None
        self._sinks[event.request] = sink, unfinished
        delivered = _call(sink, event.error or event)
        if not (delivered and unfinished):
            del self._sinks[event.request]
        if not delivered:
            self.engine.cancel(event.request)


def _call(sink: Sink, event: Event | BaseException) -> bool:
    """Pass an event on; whether that worked."""
    try:
        sink(event)
    except RuntimeError:  # the event loop of the request is closed
        return False
    except Exception:
        _log.exception("an event of a request could not be passed on")
        return False
    return True


def _log_failure(error: Exception, what: str) -> None:
    """Log a traceback, unless the request itself was wrong: then the response has the reason."""
    if not isinstance(error, UsageError):
        _log.error("%s", what, exc_info=error)


class Submission:
    """Requests of one client in a worker, seen from the server's event loop. Call `cancel` in the end in any case."""

    def __init__(self, worker: Worker, requests: list[Request]):
        self.worker, self.requests = worker, requests
        self.prompts: list[list[Piece]] = [[] for _ in requests]  # scored tokens of each prompt
        self.samples = [(n, i) for n, request in enumerate(requests) for i in range(request.samples)]
        self._numbers: list[int] = []
        self._events: asyncio.Queue[tuple[int, Event | BaseException]] = asyncio.Queue()

    async def submit(self) -> None:
        """Submit all of them.

        Raises:
            APIError: the server has too much to do. UsageError: the engine does not accept one of them.
        """
        loop = asyncio.get_running_loop()
        try:
            for place, request in enumerate(self.requests):

                def sink(event: Event | BaseException, place: int = place) -> None:
                    loop.call_soon_threadsafe(self._events.put_nowait, (place, event))

                self._numbers.append(await asyncio.wrap_future(self.worker.submit(request, sink)))
        except BaseException:
            self.cancel()
            raise

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(place of the request, piece) until all samples are done.

        Raises:
            APIError: a request failed.
        """
        left = sum(request.samples for request in self.requests if request.max_new_tokens)
        unscored = {
            n: len(request.ids) - 1
            for n, request in enumerate(self.requests)
            if request.score_prompt and len(request.ids) > 1
        }
        while left or unscored:
            place, event = await self._events.get()
            if isinstance(event, BaseException):
                raise APIError.of(event) from event
            self.prompts[place] += event.prompt
            if place in unscored and len(self.prompts[place]) >= unscored[place]:
                del unscored[place]
            if event.piece is not None:
                left -= event.piece.finish_reason is not None
                yield place, event.piece

    async def gather(self) -> list[list[Piece]]:
        """All pieces of every sample, in the order of `samples`."""
        rows: dict[tuple[int, int], list[Piece]] = {sample: [] for sample in self.samples}
        async for place, piece in self.pieces():
            rows[place, piece.sample].append(piece)
        return list(rows.values())

    def cancel(self) -> None:
        """End what is still running."""
        for number in self._numbers:
            self.worker.cancel(number)


class ModelHandle:
    """One model under its name. It generates (`worker`), writes down speech (`transcribes`), gives vectors for texts
    (`embeds`), or is only looked into.

    processor: of what it reads. bundle: all that was loaded, for views of models that read no text.
    """

    def __init__(
        self,
        name: str,
        model: Any,
        tokenizer: Tokenizer,
        processor: Any = None,
        *,
        bundle: Bundle | None = None,
        **engine: Any,
    ):
        self.name, self.model, self.tokenizer, self.processor = name, model, tokenizer, processor
        self.bundle = bundle or Bundle(model, tokenizer, source_processor=processor)
        self.transcribes = "transcribe" in commands_for(model, tokenizer)
        self.created = int(time.time())
        self.worker: Worker | None = None
        self._lock = threading.Lock()
        if isinstance(model, Decoder) and "generate" in commands_for(model, tokenizer):
            self.worker = Worker(functools.partial(Engine, model, tokenizer, **engine))
        elif self.transcribes:
            check_speech(model, processor)
        self.embeds = isinstance(model, Encoder) and model.reads == "text"

    @property
    def use(self) -> str:
        """What clients do with it, in a word."""
        if self.worker is not None:
            return "chat" if self.has_chat else "completions"
        return "transcriptions" if self.transcribes else "embeddings" if self.embeds else "looking inside"

    @property
    def block_size(self) -> int:
        """How many tokens the model reads."""
        return int(self.model.config.block_size)

    @property
    def has_chat(self) -> bool:
        """Whether it has a chat template."""
        return self.worker is not None and self.tokenizer.chat_template is not None

    @property
    def defaults(self) -> dict[str, Any]:
        """The settings of the model's folder that a request overrides, by the names of a request's fields."""
        names = {"max_new_tokens": "max_tokens"}
        return {names.get(name, name): value for name, value in from_the_folder(self.model, {}).items()}

    def run_alone(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Call a function that takes long, outside the worker's thread: one call at a time."""
        with self._lock:
            return function(*args, **kwargs)

    def prompt_ids(self, prompt: str) -> list[int]:
        """The ids that the model reads for a text, at least one: for an empty text the token that begins texts."""
        return prompt_ids(self.tokenizer, prompt, settings_of(self.model).bos_token_id)

    @functools.cached_property
    def tool_form(self) -> ToolForm:
        """How its chat template writes calls of tools.

        Raises:
            APIError: it has no form for them.
        """
        try:
            return ToolForm.of(self.tokenizer)
        except UsageError as error:
            raise APIError(400, f"{self.name}: {error}", code="no_tools", param="tools") from None

    def chat_ids(
        self, messages: Sequence[Any], *, instead: str, tools: list[dict[str, Any]] | None = None
    ) -> list[int]:
        """The ids of a chat (`message_schemas.Message`s), up to where the answer begins.

        Raises:
            APIError: there is no chat template, or it has no form for tools. UsageError: it refuses the messages.
        """
        if not self.has_chat:
            raise APIError(400, f"{self.name} has no chat template; {instead}", code="no_chat_template")
        if tools or any(message.uses_tools for message in messages):
            _ = self.tool_form
        turns = [message.turn() for message in messages]
        return self.tokenizer.chat.encode(turns, add_generation_prompt=True, tools=tools or None)

    def check_tokens(self, ids: Iterable[int], param: str) -> None:
        """Raise `APIError` for an id that the tokenizer or the model's table does not have."""
        try:
            check_ids(ids, self.tokenizer, self.model.config.vocab_size)
        except UsageError as error:
            raise APIError(400, str(error), param=param) from None

    def check_length(self, n: int, *, free: int = 0, param: str = "prompt") -> None:
        """Raise `APIError` for more tokens than the model reads, or fewer than `free` places left for an answer."""
        if n + free > self.block_size:
            message = f"the prompt has {n:,} tokens and {self.name} reads {self.block_size:,} at most; shorten it"
            raise APIError(400, message, code="context_length_exceeded", param=param)


def find_model(models: Mapping[str, ModelHandle], name: str | None, *, generates: bool = False) -> ModelHandle:
    """The model of this name; the first one for None.

    Raises:
        APIError: there is no such model, or it does not generate and should.
    """
    if not models:
        raise APIError(404, "no model is loaded yet; train one on the page, or name one: glassformer serve MODEL")
    if name is None:
        name = next(iter(models))
    if name not in models:
        known = ", ".join(models)
        raise APIError(404, f"there is no model {name!r}; there are: {known}", code="model_not_found", param="model")
    if generates and models[name].worker is None:
        path = {"transcriptions": "/v1/audio/transcriptions", "embeddings": "/v1/embeddings"}
        use = path.get(models[name].use, "/api/look/VIEW")
        raise APIError(400, f"{name} continues no text; use {use}", param="model")
    return models[name]
