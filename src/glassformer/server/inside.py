"""Looking inside over HTTP: what the page asks, and whoever wants the numbers themselves.

GET  /api/models                    the models, their sizes, what they can do
GET  /api/vocabulary?model=NAME     the text of every token
POST /api/tokenize                  text or messages -> ids
POST /api/generate                  ids -> more ids, one event a token (server-sent events)
POST /api/logits                    ids, positions -> logits, as the bytes of a safetensors file

Everything is told of ids, never of text that would have to be cut into tokens again: going on from any token is exact.
Numbers that come in masses are safetensors, others JSON. A new view of the inside is a new path here.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator
from typing import Annotated, Any

import torch
from fastapi import APIRouter, Query, Response
from fastapi import Request as HTTPRequest
from fastapi.responses import StreamingResponse
from safetensors.torch import save
from starlette.concurrency import run_in_threadpool

from glassformer.errors import GlassformerError
from glassformer.generation import Piece, Request, sampling_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.answering import Asked, event_line, or_gone
from glassformer.server.asking import SAMPLING, check_length, check_tokens, named, prompt_ids
from glassformer.server.errors import Refused
from glassformer.server.schemas import MOST_TOKENS, GenerateBody, LogitsBody, TokenizeBody
from glassformer.server.serving import Served
from glassformer.server.worker import Overloaded

MOST_NUMBERS = 1 << 23  # in one answer: 32 MiB of fp32


def inside_routes(models: dict[str, Served]) -> APIRouter:
    """The paths under `/api` for these models."""
    routes = APIRouter(prefix="/api")
    vocabularies: dict[str, tuple[str, bytes]] = {}  # by name: a tag of the content, and the content

    @routes.get("/models")
    async def list_models() -> Any:
        """Every model with its sizes."""
        return {"models": [_described(served) for served in models.values()]}

    @routes.get("/vocabulary")
    def vocabulary(http: HTTPRequest, model: Annotated[str | None, Query(max_length=300)] = None) -> Response:
        """Every token's text, in the order of ids; the browser keeps it (ETag)."""
        served = named(models, model)
        if served.name not in vocabularies:
            body = json.dumps(_spelled(served.tokenizer), ensure_ascii=False).encode()
            vocabularies[served.name] = f'"{hashlib.sha256(body).hexdigest()[:32]}"', body
        tag, body = vocabularies[served.name]
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if http.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    @routes.post("/tokenize")
    def tokenize(body: TokenizeBody) -> Any:
        """The ids that a model reads for a text or a chat, and the tokens that end what it then writes."""
        served = named(models, body.model)
        tokenizer = served.tokenizer
        if body.messages is None:
            ids, ends = prompt_ids(served, body.text or ""), sorted(tokenizer.ends)
        elif not served.chats:
            raise Refused(400, f"{served.name} has no chat template; give text", code="no_chat_template")
        else:
            messages = [{"role": message.role, "content": message.text} for message in body.messages]
            ids, ends = tokenizer.chat.encode(messages, add_generation_prompt=True), list(tokenizer.chat.turn_ends)
        if len(ids) > MOST_TOKENS:
            raise Refused(400, f"the text has {len(ids):,} tokens, and {MOST_TOKENS:,} are the most; shorten it")
        spelled = [tokenizer.token_bytes(i) for i in ids]
        return {
            "model": served.name,
            "ids": ids,
            "texts": [_text(raw, tokenizer, i)[0] for raw, i in zip(spelled, ids, strict=True)],
            "bytes": [list(raw) for raw in spelled],
            "end_tokens": ends,
        }

    @routes.post("/logits", response_class=Response)
    async def logits(body: LogitsBody, http: HTTPRequest) -> Response:
        """A safetensors file: `logits` (P, V) in fp32, and the `positions` (P,) that they belong to."""
        served = named(models, body.model, writes=True)
        check_tokens(served, body.ids, "ids")
        check_length(served, len(body.ids), param="ids")
        numbers = len(body.positions) * served.tokenizer.vocab_size
        if numbers > MOST_NUMBERS:
            raise Refused(
                400, f"that are {numbers:,} numbers, and {MOST_NUMBERS:,} are the most; ask for fewer positions"
            )
        assert served.worker is not None
        future = served.worker.between(served.looker.logits(body.ids, body.positions))
        try:
            logits_PV = await or_gone(asyncio.wrap_future(future), http)
        except Overloaded as error:
            raise Refused(503, str(error), code="overloaded") from None
        tensors = {"logits": logits_PV, "positions": torch.tensor(body.positions)}
        written = await run_in_threadpool(save, tensors, {"model": served.name, "axes": "logits: position, token"})
        return Response(written, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @routes.post("/generate", response_class=StreamingResponse)
    async def generate(body: GenerateBody) -> StreamingResponse:
        """Go on from ids, to the end of what the model reads at the most: events `start` (with the seed), `prompt` (if
        `score`: the probability of every given id), `token`, and `end` or `error`."""
        served = named(models, body.model, writes=True)
        check_tokens(served, body.ids, "ids")
        check_length(served, len(body.ids), param="ids")
        check_tokens(served, body.end_tokens or [], "end_tokens")
        seed = random.SystemRandom().randrange(1 << 32) if body.seed is None else body.seed
        request = Request(
            ids=tuple(body.ids),
            max_new_tokens=min(body.max_tokens, served.model.config.block_size - len(body.ids)),
            sampling=sampling_of(served.model, {name: getattr(body, name) for name in SAMPLING} | {"seed": seed}),
            end_tokens=None if body.end_tokens is None else frozenset(body.end_tokens),
            score_prompt=body.score,
        )
        assert served.worker is not None
        asked = Asked(served.worker, [request])
        await asked.begin()
        events = _events(asked, served, full=request.max_new_tokens < body.max_tokens)
        return StreamingResponse(events, media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    return routes


async def _events(asked: Asked, served: Served, *, full: bool) -> AsyncIterator[str]:
    """The events of one request; a client that goes away ends this, and with it the request."""
    (request,) = asked.requests
    reason: str | None = "length"
    untold = request.score_prompt
    try:
        yield event_line({"type": "start", "model": served.name, "seed": request.sampling.seed})
        async for _, piece in asked.pieces():
            if untold:
                yield _scored(asked.prompts[0])
                untold = False
            yield event_line(
                {
                    "type": "token",
                    "id": piece.token,
                    "text": piece.text,
                    "probability": piece.probability,
                    "chance": piece.chance,
                }
            )
            reason = piece.finish_reason
        if untold:
            yield _scored(asked.prompts[0])
        yield event_line({"type": "end", "reason": "full" if full and reason == "length" else reason})
    except Refused as error:
        yield event_line({"type": "error", "message": str(error)})
    finally:
        asked.cancel()


def _scored(prompt: list[Piece]) -> str:
    return event_line({"type": "prompt", "probabilities": [None, *(piece.probability for piece in prompt)]})


def _described(served: Served) -> dict[str, Any]:
    config = served.model.config
    sizes = {name: getattr(config, name, None) for name in ("block_size", "n_layer", "n_head", "n_embd")}
    return {
        "name": served.name,
        "kind": type(served.model).__name__,
        "writes": served.worker is not None,
        "chats": served.chats,
        "vocab_size": served.tokenizer.vocab_size,
        "defaults": served.defaults,
        **sizes,
    }


def _spelled(tokenizer: Tokenizer) -> dict[str, Any]:
    """texts: of every token, None where there is no such id. parts: ids of those that are a part of a character, whose
    text is their bytes as `\\xNN`. special: ids of special tokens."""
    texts: list[str | None] = []
    parts = []
    for i in range(tokenizer.vocab_size):
        try:
            text, whole = _text(tokenizer.token_bytes(i), tokenizer, i)
        except GlassformerError:
            text, whole = None, True
        texts.append(text)
        if not whole:
            parts.append(i)
    return {"texts": texts, "parts": parts, "special": sorted(tokenizer.special_tokens.values())}


def _text(raw: bytes, tokenizer: Tokenizer, i: int) -> tuple[str, bool]:
    """A token's own text, and whether its bytes are whole characters."""
    try:
        return raw.decode("utf-8"), True
    except UnicodeDecodeError:
        return tokenizer.token_text(i), False
