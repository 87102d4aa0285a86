"""The HTTP API: OpenAI's paths and bodies, so that its clients work with another `base_url` and nothing else.

GET  /v1/models  /v1/models/NAME        POST /v1/completions        GET  /healthz
POST /v1/embeddings                     POST /v1/chat/completions   GET  /metrics     (Prometheus)

Beside them looking inside: `/api/...` (inside.py) and the page that asks it, `/` (page.py).
"""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Response
from fastapi import Request as HTTPRequest
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from glassformer import __version__
from glassformer.generation import embed
from glassformer.server.answering import answer
from glassformer.server.answers import Shape
from glassformer.server.asking import chat_request, check_tokens, completion_request, named, read_prompt
from glassformer.server.doors import Guard, add_errors
from glassformer.server.errors import Refused
from glassformer.server.inside import inside_routes
from glassformer.server.metrics import exposition
from glassformer.server.page import add_page
from glassformer.server.schemas import ChatBody, CompletionBody, EmbeddingBody, several
from glassformer.server.serving import Served
from glassformer.server.worker import MOST_WAITING


def create_app(models: dict[str, Served], *, api_key: str | None = None, local: bool = True) -> FastAPI:
    """The application for these models, by name; the first one answers who names none.

    Args:
        api_key: what clients must send as `Authorization: Bearer KEY`; None: nothing.
        local: bound to this machine alone, so that requests under another host's name (DNS rebinding) are refused.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        for served in models.values():
            if served.worker is not None:
                await run_in_threadpool(served.worker.stop)

    app = FastAPI(title="glassformer", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Guard, api_key=api_key, local=local)
    add_errors(app)
    app.include_router(inside_routes(models))
    add_page(app)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Whether every model can answer."""
        well = all(served.worker is None or served.worker.running for served in models.values())
        return JSONResponse({"status": "ok" if well else "failed"}, status_code=200 if well else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Counts for Prometheus."""
        return Response(exposition(models.values()), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def list_models() -> Any:
        """The names that `model` may have."""
        return {"object": "list", "data": [_described(served) for served in models.values()]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> Any:
        """One of them."""
        return _described(named(models, name))

    @app.post("/v1/completions")
    async def completions(body: CompletionBody, http: HTTPRequest) -> Any:
        """Go on from a text."""
        served = named(models, body.model, writes=True)
        prompts = [read_prompt(served, prompt) for prompt in body.prompts]
        if len(prompts) * (body.n or 1) > MOST_WAITING:
            raise Refused(400, f"{len(prompts)} prompts x n={body.n} are too many; {MOST_WAITING:,} are the most")
        requests = [completion_request(served, body, prompt) for prompt in prompts]
        shape = Shape(served.name, served.tokenizer, chat=False, alternatives=body.logprobs)
        return await answer(served, requests, shape, body, http, echo=prompts if body.echo else None)

    @app.post("/v1/chat/completions")
    async def chat_completions(body: ChatBody, http: HTTPRequest) -> Any:
        """Answer the last message of a chat."""
        served = named(models, body.model, writes=True)
        if not served.chats:
            raise Refused(400, f"{served.name} has no chat template; use /v1/completions", code="no_chat_template")
        alternatives = (body.top_logprobs or 0) if body.logprobs else None
        shape = Shape(served.name, served.tokenizer, chat=True, alternatives=alternatives)
        return await answer(served, [chat_request(served, body)], shape, body, http)

    @app.post("/v1/embeddings")
    async def embeddings(body: EmbeddingBody) -> Any:
        """A vector for each text."""
        served = named(models, body.model)
        if served.worker is not None:
            raise Refused(400, f"{served.name} gives no vectors; name an encoder, for example minilm-l6")
        width = served.model.config.n_embd
        if body.dimensions not in (None, width):
            raise Refused(
                400, f"dimensions: {served.name} gives {width}, and no others; leave it out", param="dimensions"
            )
        texts = several(body.input)
        for text in texts:
            check_tokens(served, text if isinstance(text, list) else (), "input")
        vectors = await run_in_threadpool(embed, served.model, served.tokenizer, texts, cut=False)
        n = sum(len(served.tokenizer.encode(text) if isinstance(text, str) else text) for text in texts)
        data = [
            {"object": "embedding", "index": i, "embedding": _encoded(vector.tolist(), body.encoding_format)}
            for i, vector in enumerate(vectors)
        ]
        counts = {"prompt_tokens": n, "total_tokens": n}
        return {"object": "list", "data": data, "model": served.name, "usage": counts}

    return app


def _described(served: Served) -> dict[str, Any]:
    about = {"id": served.name, "object": "model", "created": served.created, "owned_by": "glassformer"}
    return {**about, "defaults": served.defaults}


def _encoded(vector: list[float], form: str | None) -> Any:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode() if form == "base64" else vector
