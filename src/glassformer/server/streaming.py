"""Requests that a worker is running, seen from the event loop of the server: their pieces, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import Request as HTTPRequest
from fastapi.responses import StreamingResponse

from glassformer.generation import Event, Piece, Request
from glassformer.server.middleware import APIError
from glassformer.server.worker import Overloaded, Worker

CHECK_EVERY = 0.1  # seconds between checks whether a client that waits for a whole answer is still connected

T = TypeVar("T")


class Submission:
    """Some requests of one client at a worker. Call `cancel` in the end, however it ends."""

    def __init__(self, worker: Worker, requests: list[Request]):
        self.worker, self.requests = worker, requests
        self.prompts: list[list[Piece]] = [[] for _ in requests]  # scored tokens of each prompt
        self.samples = [(n, i) for n, request in enumerate(requests) for i in range(request.samples)]
        self._numbers: list[int] = []
        self._events: asyncio.Queue[tuple[int, Event | BaseException]] = asyncio.Queue()

    async def submit(self) -> None:
        """Hand them in.

        Raises:
            APIError: the server has too much to do. UsageError: the engine does not accept one of them.
        """
        loop = asyncio.get_running_loop()
        try:
            for place, request in enumerate(self.requests):

                def sink(event: Event | BaseException, place: int = place) -> None:
                    loop.call_soon_threadsafe(self._events.put_nowait, (place, event))

                self._numbers.append(await result_of(self.worker.submit(request, sink)))
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


async def result_of(future: Future[T]) -> T:
    """The result of a worker's future. Raises `APIError` if the worker has too much to do."""
    try:
        return await asyncio.wrap_future(future)
    except Overloaded as error:
        raise APIError(503, str(error), code="overloaded") from None


async def unless_disconnected(work: Awaitable[T], http: HTTPRequest) -> T:
    """The result of some work, unless the client disconnects before it is done."""

    async def disconnected() -> None:
        while not await http.is_disconnected():
            await asyncio.sleep(CHECK_EVERY)

    result, gone = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    await asyncio.wait([result, gone], return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    if not result.done():
        result.cancel()
        raise APIError(499, "the client went away")
    return result.result()


def event_stream(lines: AsyncIterator[str]) -> StreamingResponse:
    """A response of server-sent events."""
    return StreamingResponse(lines, media_type="text/event-stream", headers={"Cache-Control": "no-store"})


def event_line(body: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"
