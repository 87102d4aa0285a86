"""From the engine's events to responses: whole, or piece by piece as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Iterator
from typing import Any

from fastapi import Request as HTTPRequest
from fastapi.responses import StreamingResponse

from glassformer.generation import Event, Piece, Request
from glassformer.server.answers import REASONS, Shape, echoed, usage
from glassformer.server.asking import Prompt
from glassformer.server.errors import Refused, refusal_of
from glassformer.server.schemas import Drawing
from glassformer.server.serving import Served
from glassformer.server.worker import Overloaded, Worker

LOOK_EVERY = 0.1  # seconds, whether a client that waits for a whole answer is still there


async def answer(
    served: Served,
    requests: list[Request],
    shape: Shape,
    body: Drawing,
    http: HTTPRequest,
    *,
    echo: list[Prompt] | None = None,
) -> Any:
    """The response to these requests, whole or as a stream. Raises `Refused`.

    echo: the prompts, one a request, that the answers begin with.
    """
    assert served.worker is not None
    asked = Asked(served.worker, requests)
    await asked.begin()
    if body.stream:
        return StreamingResponse(_stream(asked, shape, body, echo), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store"})  # fmt: skip
    pieces, reasons = [], []
    try:
        gathered = await or_gone(asked.gather(), http)
    finally:
        asked.cancel()
    for (number, _), row in gathered.items():
        pieces.append(_echo(asked, shape, echo, number) + row)
        reasons.append(REASONS[row[-1].finish_reason or "length"] if row else "length")
    counts = usage(sum(len(request.ids) for request in requests), sum(map(len, gathered.values())))
    return shape.whole(pieces, reasons, counts)


async def _stream(asked: Asked, shape: Shape, body: Drawing, echo: list[Prompt] | None) -> AsyncIterator[str]:
    """Server-sent events, one a token; a client that goes away ends this, and with it the request."""
    written = 0
    at = {(n, i): -1 for n, request in enumerate(asked.requests) for i in range(request.samples)}  # characters so far
    counted = body.stream_options is not None and bool(body.stream_options.include_usage)
    uncounted: dict[str, None] = {"usage": None} if counted else {}

    def part(place: tuple[int, int], pieces: list[Piece], reason: str | None) -> str:
        told = shape.part(asked.index(*place), pieces, reason, at=at[place])
        at[place] += sum(len(piece.text) for piece in pieces)
        return event_line(told | uncounted)

    def beginning(place: tuple[int, int]) -> Iterator[str]:
        if at[place] < 0:
            at[place] = 0
            if shape.chat:
                yield event_line(shape.first(asked.index(*place)) | uncounted)
            if echo is not None:
                yield part(place, _echo(asked, shape, echo, place[0]), None)

    try:
        async for number, piece in asked.pieces():
            place = number, piece.sample
            written += 1
            for line in beginning(place):
                yield line
            yield part(place, [piece], REASONS[piece.finish_reason] if piece.finish_reason else None)
        for place in [place for place, begun in at.items() if begun < 0]:  # nothing was to be written
            for line in beginning(place):
                yield line
            yield part(place, [], "length")
        if counted:
            yield event_line(shape.last(usage(sum(len(request.ids) for request in asked.requests), written)))
        yield "data: [DONE]\n\n"
    except Refused as error:
        yield event_line(error.body())
    finally:
        asked.cancel()


def _echo(asked: Asked, shape: Shape, echo: list[Prompt] | None, number: int) -> list[Piece]:
    if echo is None:
        return []
    return echoed(shape.tokenizer, echo[number], asked.prompts[number], logprobs=shape.alternatives is not None)


def event_line(body: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False, allow_nan=False)}\n\n"


class Asked:
    """Some requests under way at a worker, seen from the event loop."""

    def __init__(self, worker: Worker, requests: list[Request]):
        self.worker, self.requests = worker, requests
        self.prompts: list[list[Piece]] = [[] for _ in requests]
        self.numbers: list[int] = []
        self._events: asyncio.Queue[tuple[int, Event | BaseException]] = asyncio.Queue()

    def index(self, number: int, sample: int) -> int:
        """The place of a sample among all choices."""
        return sum(request.samples for request in self.requests[:number]) + sample

    async def begin(self) -> None:
        """Hand them in.

        Raises:
            Refused: the engine does not take one of them.
        """
        loop = asyncio.get_running_loop()
        try:
            for place, request in enumerate(self.requests):

                def sink(event: Event | BaseException, place: int = place) -> None:
                    loop.call_soon_threadsafe(self._events.put_nowait, (place, event))

                self.numbers.append(await asyncio.wrap_future(self.worker.submit(request, sink)))
        except Overloaded as error:
            self.cancel()
            raise Refused(503, str(error), code="overloaded") from None
        except BaseException:
            self.cancel()
            raise

    async def pieces(self) -> AsyncIterator[tuple[int, Piece]]:
        """(place of the request, piece) until all samples are done."""
        left = sum(request.samples for request in self.requests if request.max_new_tokens)
        unscored = {
            n: len(request.ids) - 1
            for n, request in enumerate(self.requests)
            if request.score_prompt and len(request.ids) > 1
        }
        while left or unscored:
            place, event = await self._events.get()
            if isinstance(event, BaseException):
                raise refusal_of(event) from event
            self.prompts[place] += event.prompt
            if place in unscored and len(self.prompts[place]) >= unscored[place]:
                del unscored[place]
            if event.piece is not None:
                left -= event.piece.finish_reason is not None
                yield place, event.piece

    async def gather(self) -> dict[tuple[int, int], list[Piece]]:
        """All pieces of every sample, by the place of the request and the sample."""
        rows: dict[tuple[int, int], list[Piece]] = {
            (n, i): [] for n, request in enumerate(self.requests) for i in range(request.samples)
        }
        async for place, piece in self.pieces():
            rows[place, piece.sample].append(piece)
        return rows

    def cancel(self) -> None:
        """Let go of what is still going on."""
        for number in self.numbers:
            self.worker.cancel(number)


async def or_gone(work: Awaitable[Any], http: HTTPRequest) -> Any:
    """The result of some work, unless the client goes away before it is done."""

    async def gone() -> None:
        while not await http.is_disconnected():
            await asyncio.sleep(LOOK_EVERY)

    tasks = [asyncio.ensure_future(work), asyncio.ensure_future(gone())]
    done, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    if tasks[0] not in done:
        raise Refused(499, "the client went away")
    return tasks[0].result()
