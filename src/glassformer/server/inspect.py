"""Looking inside over HTTP, for the page and for programs.

GET  /api/models                    the models, their sizes, what they can do
GET  /api/vocabulary?model=NAME     the text of every token
POST /api/tokenize                  text or messages -> ids
POST /api/generate                  ids -> more ids, one event a token (server-sent events)
POST /api/logits                    ids, positions -> logits, as the bytes of a safetensors file
GET  /api/views                     the views of `glassformer look`, with a JSON schema of their options
POST /api/look/VIEW                 options -> the figures of a view, or a file of them

Generation is in ids and not in text that would have to be tokenized again: continuing from any token is exact. Large
arrays are safetensors, everything else JSON.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
from collections.abc import AsyncIterator, Awaitable, Generator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import torch
from fastapi import APIRouter, Query, Response
from fastapi import Request as HTTPRequest
from fastapi.responses import StreamingResponse
from safetensors.torch import save
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from glassformer.errors import GlassformerError, did_you_mean
from glassformer.figures import Figure
from glassformer.generation import Request, sampling_of
from glassformer.generation.filters import token_logits
from glassformer.inspection.fits import takes_file, why_not
from glassformer.inspection.look import Subject, show, subject_of
from glassformer.inspection.options import example_of, options_of
from glassformer.layers import RowCache
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.stepwise import merge_by_merge
from glassformer.server.inspect_schemas import GenerateBody, LogitsBody, TokenizeBody, ViewBody
from glassformer.server.middleware import APIError, event_line, event_stream, unless_disconnected
from glassformer.server.saving import figures_response
from glassformer.server.schemas import MAX_TOKENS
from glassformer.server.uploads import uploaded
from glassformer.server.worker import ModelHandle, Submission, find_model
from glassformer.views import OLD_NAMES, VIEWS, ViewEntry

MAX_NUMBERS = 1 << 23  # in one answer: 32 MiB of fp32
CHUNK = 512  # tokens that a `LogitsReader` reads at once: how long it delays the engine's next step


def inspect_routes(models: Mapping[str, ModelHandle]) -> APIRouter:
    """The paths under `/api` for these models."""
    routes = APIRouter(prefix="/api")
    vocabularies: WeakKeyDictionary[ModelHandle, tuple[str, bytes]] = WeakKeyDictionary()  # a tag, and the content
    readers: WeakKeyDictionary[ModelHandle, LogitsReader] = WeakKeyDictionary()

    async def found(name: str | None, generates: bool = False) -> ModelHandle:
        """As `find_model`; a checkpoint is opened outside the event loop."""
        return await run_in_threadpool(find_model, models, name, generates=generates)

    @routes.get("/models")
    async def list_models() -> Any:
        return {"models": [_describe(handle) for handle in models.values()]}

    @routes.get("/vocabulary")
    def vocabulary(http: HTTPRequest, model: Annotated[str | None, Query(max_length=300)] = None) -> Response:
        """Every token's text, in the order of ids; browsers cache it (ETag)."""
        handle = find_model(models, model)
        if handle.tokenizer is None:
            raise APIError(400, f"{handle.name} reads no text and has no tokens", param="model")
        if handle not in vocabularies:
            body = json.dumps(_vocabulary(handle.tokenizer), ensure_ascii=False).encode()
            vocabularies[handle] = f'"{hashlib.sha256(body).hexdigest()[:32]}"', body
        tag, body = vocabularies[handle]
        headers = {"ETag": tag, "Cache-Control": "private, no-cache"}
        if http.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(body, media_type="application/json", headers=headers)

    @routes.post("/tokenize")
    def tokenize(body: TokenizeBody) -> Any:
        """The ids that a model reads for a text or a chat, and the tokens that end its answer."""
        handle = find_model(models, body.model)
        tokenizer = handle.tokenizer
        if tokenizer is None:
            raise APIError(400, f"{handle.name} reads no text and has no tokens", param="model")
        if body.messages is None:
            ids, ends = handle.prompt_ids(body.text or ""), sorted(tokenizer.ends)
        else:
            ids = handle.chat_ids(body.messages, instead="give text")
            ends = list(tokenizer.chat.turn_ends)
        if len(ids) > MAX_TOKENS:
            raise APIError(400, f"the text has {len(ids):,} tokens, more than {MAX_TOKENS:,}; shorten it")
        raw = [tokenizer.token_bytes(i) for i in ids]
        more: dict[str, Any] = {}
        if body.text is not None:
            more["decoded"] = tokenizer.decode(tokenizer.text_ids(ids))
        if body.text and body.merges:
            chunks = merge_by_merge(tokenizer, body.text, most=body.merges)
            more["chunks"] = None if chunks is None else [asdict(chunk) for chunk in chunks]
        return {
            **more,
            "model": handle.name,
            "ids": ids,
            "texts": [_text(token, tokenizer, i)[0] for token, i in zip(raw, ids, strict=True)],
            "bytes": [list(token) for token in raw],
            "end_tokens": ends,
        }

    @routes.post("/logits", response_class=Response)
    async def logits(body: LogitsBody, http: HTTPRequest) -> Response:
        """A safetensors file: `logits` (P, V) in fp32, and the `positions` (P,) that they belong to."""
        handle = await found(body.model, generates=True)
        handle.check_tokens(body.ids, "ids")
        handle.check_length(len(body.ids), param="ids")
        n = len(body.positions) * handle.tokenizer.vocab_size
        if n > MAX_NUMBERS:
            raise APIError(400, f"{n:,} numbers are more than {MAX_NUMBERS:,}; give fewer positions")
        assert handle.worker is not None
        reader = readers.setdefault(handle, LogitsReader(handle.model, handle.tokenizer))
        future = handle.worker.run_in_engine_thread(reader.logits(body.ids, body.positions))
        logits_PV = await unless_disconnected(asyncio.wrap_future(future), http)
        tensors = {"logits": logits_PV, "positions": torch.tensor(body.positions)}
        content = await run_in_threadpool(save, tensors, {"model": handle.name, "axes": "logits: position, token"})
        return Response(content, media_type="application/octet-stream", headers={"Cache-Control": "no-store"})

    @routes.get("/views")
    async def list_views(model: Annotated[str | None, Query(max_length=300)] = None) -> Any:
        """Every view with its summary, a JSON schema of its options, and options to begin with; with a model's name,
        also `reason`: why the view does not apply to it, or null; and `file`: whether it takes a file of what the
        model reads."""
        subject = None if model is None else _subject(models, await found(model))

        def described(name: str, entry: ViewEntry) -> dict[str, Any]:
            function = entry.load()
            schema = options_of(function).model_json_schema()
            fits = {} if subject is None else {"reason": why_not(name, subject), "file": takes_file(name, subject)}
            return {"name": name, "summary": entry.summary, "options": schema, "example": example_of(function), **fits}

        return {"views": [described(name, entry) for name, entry in VIEWS.items()]}

    @routes.post("/look/{view}")
    async def look(view: str, body: ViewBody, http: HTTPRequest) -> Response:
        """The figures of a view, as `figures.to_json` describes them; or as a file (`save`)."""
        name = OLD_NAMES.get(view, view)
        if name not in VIEWS:
            raise APIError(404, f"there is no view {view!r}; {did_you_mean(view, VIEWS)}", code="view_not_found")
        handle = await found(body.model)

        def figures() -> list[Figure]:
            subject = _subject(models, handle)
            if body.file is not None:  # the one that was sent is all that is opened
                subject = replace(subject, source_processor=subject.processor)
            with uploaded(subject if takes_file(name, subject) else replace(subject, processor=None), body) as options:
                return show(name, subject, options).figures()

        def job() -> Generator[None, None, list[Figure]]:
            return figures()
            yield  # a generator: the worker runs it between two steps of its engine

        work: Awaitable[list[Figure]]
        if handle.worker is None:
            work = run_in_threadpool(handle.run_alone, figures)
        else:
            work = asyncio.wrap_future(handle.worker.run_in_engine_thread(job()))
        drawn = await unless_disconnected(work, http)
        return await figures_response(drawn, name, body.save, model=handle.name, view=name)

    @routes.post("/generate", response_class=StreamingResponse)
    async def generate(body: GenerateBody) -> StreamingResponse:
        """Continue ids, up to the model's context at most: events `start` (with the seed), `prompt` (if `score`: the
        probability of every given id), `token`, and `end` or `error`."""
        handle = await found(body.model, generates=True)
        handle.check_tokens(body.ids, "ids")
        handle.check_length(len(body.ids), param="ids")
        handle.check_tokens(body.end_tokens or [], "end_tokens")
        seed = random.SystemRandom().randrange(1 << 32) if body.seed is None else body.seed
        request = Request(
            ids=tuple(body.ids),
            max_new_tokens=min(body.max_tokens, handle.block_size - len(body.ids)),
            sampling=sampling_of(handle.model, body.sampling_fields() | {"seed": seed}),
            end_tokens=None if body.end_tokens is None else frozenset(body.end_tokens),
            score_prompt=body.score,
            ranks=True,
        )
        assert handle.worker is not None
        submission = Submission(handle.worker, [request])
        await submission.submit()
        return event_stream(_events(submission, handle, full=request.max_new_tokens < body.max_tokens))

    return routes


def _subject(models: Mapping[str, ModelHandle], handle: ModelHandle) -> Subject:
    """A served model as views take it; a view can open another served model by its name."""

    def open_model(name: str) -> Subject:
        return _subject(models, find_model(models, name))

    subject = subject_of(handle.name, handle.bundle, open_model)
    return replace(subject, source_processor=None)  # it would open files of this machine by their names


async def _events(submission: Submission, handle: ModelHandle, *, full: bool) -> AsyncIterator[str]:
    """The events of one request; a client that disconnects ends this, and with it the request."""
    (request,) = submission.requests
    reason: str | None = "length"
    score = request.score_prompt

    def prompt_line() -> str:
        scored = submission.prompts[0]
        ranks = [None, *(piece.rank for piece in scored)]
        return event_line({"type": "prompt", "probabilities": [None, *(p.probability for p in scored)], "ranks": ranks})

    try:
        yield event_line({"type": "start", "model": handle.name, "seed": request.sampling.seed})
        async for _, piece in submission.pieces():
            if score:
                yield prompt_line()
                score = False
            names = ("probability", "sampling_probability", "rank", "u")
            fields = {name: getattr(piece, name) for name in names}
            yield event_line({"type": "token", "id": piece.token, "text": piece.text, **fields})
            reason = piece.finish_reason
        if score:
            yield prompt_line()
        yield event_line({"type": "end", "reason": "full" if full and reason == "length" else reason})
    except APIError as error:
        yield event_line({"type": "error", "message": str(error)})
    finally:
        submission.cancel()


def _describe(handle: ModelHandle) -> dict[str, Any]:
    config = handle.model.config
    return {
        "name": handle.name,
        "kind": type(handle.model).__name__,
        "writes": handle.worker is not None,
        "chats": handle.has_chat,
        "reads": handle.model.reads,
        "vocab_size": getattr(handle.tokenizer, "vocab_size", None),
        "defaults": handle.defaults,
        **{name: getattr(config, name, None) for name in ("block_size", "n_layer", "n_head", "n_embd")},
    }


def _vocabulary(tokenizer: Tokenizer) -> dict[str, Any]:
    """texts: of every token, None for an id without a token. parts: ids of tokens that are a part of a character (their
    text is bytes as `\\xNN`). special: ids of special tokens."""
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


class LogitsReader:
    """The logits of a `Decoder`, those that tokens are sampled from. For one thread.

    It has a cache of one row as the engine has, so that the numbers are the engine's in 8 and 4 bits too. The last text
    stays in the cache: a longer one with the same beginning costs only its new tokens.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self._cache: RowCache | None = None

    def logits(self, ids: Sequence[int], positions: Sequence[int]) -> Generator[None, None, Tensor]:
        """A job for the engine's thread: the logits at `positions` (0 is the first token) of a text, (P, V) in fp32 on
        the CPU, -inf for ids without a token. Each `next` reads `CHUNK` tokens; the generator returns the logits."""
        cache, self._cache = self._cache, None  # put back at the end, unless an error occurs
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
