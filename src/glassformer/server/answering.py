"""From the engine's events to responses: whole, or piece by piece as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from fastapi import Request as HTTPRequest
from fastapi.responses import StreamingResponse

from glassformer.generation import Event, Piece, Request
from glassformer.server.answers import REASONS, Shape, given_prompt, usage
from glassformer.server.errors import Refused, refusal_of
from glassformer.server.schemas import Drawing
from glassformer.server.serving import Served
from glassformer.server.worker import Overloaded, Worker

LOOK_EVERY = 0.1  # seconds, whether a client that waits for a whole answer is still there


async def answer(
    served: Served, requests: list[Request], shape: Shape, body: Drawing, http: HTTPRequest, *, echo: bool = False
) -> Any:
    """The response to these requests, whole or as a stream. Raises `Refused`."""
    assert served.worker is not None
    asked = Asked(served.worker, requests)
    await asked.begin()
    if body.stream:
        return StreamingResponse(_stream(asked, shape, body, echo), media_type="text/event-stream",
                                 headers={"Cache-Control": "no-store"})  # fmt: skip
    texts, pieces, reasons = [], [], []
    try:
        gathered = await or_gone(asked.gather(), http)
    finally:
        asked.cancel()
    for number, request in enumerate(requests):
        for sample in range(request.samples):
            row, text = gathered[number, sample], ""
            if echo:
                text = served.tokenizer.decode(list(request.ids))
            given = (
                given_prompt(served.tokenizer, list(request.ids), asked.prompts[number], 0)
                if request.score_prompt
                else []
            )
            texts.append(text + "".join(piece.text for piece in row))
            pieces.append(given + row)
            reasons.append(REASONS[row[-1].finish_reason or "length"] if row else "length")
    counts = usage(sum(len(request.ids) for request in requests), sum(map(len, gathered.values())))
    return shape.whole(texts, pieces, reasons, counts)


async def _stream(asked: Asked, shape: Shape, body: Drawing, echo: bool) -> AsyncIterator[str]:
    """Server-sent events, one a token; a client that goes away ends this, and with it the request."""
    written, begun = 0, set()
    try:
        if echo:
            for number, request in enumerate(asked.requests):
                for sample in range(request.samples):
                    text = shape.tokenizer.decode(list(request.ids))
                    yield event_line(shape.piece(asked.index(number, sample), text, [], None))
        async for number, piece in asked.pieces():
            index = asked.index(number, piece.sample)
            written += 1
            reason = REASONS[piece.finish_reason] if piece.finish_reason else None
            ended = piece.finish_reason == "end_of_text"
            yield event_line(shape.piece(index, piece.text, [] if ended else [piece], reason, first=index not in begun))
            begun.add(index)
        if (body.stream_options or {}).get("include_usage"):
            yield event_line(shape.last(usage(sum(len(request.ids) for request in asked.requests), written)))
        yield "data: [DONE]\n\n"
    except Refused as error:
        yield event_line(error.body())
    finally:
        asked.cancel()


def event_line(body: Any) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


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
