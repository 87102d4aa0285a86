"""OpenAI's API: its paths and bodies, so that its clients work with another `base_url` and nothing else.

GET  /v1/models  /v1/models/NAME        POST /v1/completions
POST /v1/embeddings                     POST /v1/chat/completions
"""

from __future__ import annotations

import base64
import random
import struct
from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HTTPRequest
from starlette.concurrency import run_in_threadpool

from glassformer.generation import Request, embed, new_tokens_of, sampling_of
from glassformer.server.middleware import APIError
from glassformer.server.models import ModelHandle, find_model
from glassformer.server.openai_format import Prompt, ResponseFormat, usage
from glassformer.server.schemas import ChatBody, CompletionBody, EmbeddingBody, WritingBody, as_list
from glassformer.server.streaming import Submission, event_stream, unless_disconnected
from glassformer.server.worker import MAX_WAITING

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it


def openai_routes(models: Mapping[str, ModelHandle]) -> APIRouter:
    """The paths under `/v1` for these models."""
    routes = APIRouter(prefix="/v1")

    @routes.get("/models")
    async def list_models() -> Any:
        """The names that `model` may have."""
        return {"object": "list", "data": [_describe(handle) for handle in models.values()]}

    @routes.get("/models/{name:path}")
    async def get_model(name: str) -> Any:
        """One of them."""
        return _describe(find_model(models, name))

    @routes.post("/completions")
    async def completions(body: CompletionBody, http: HTTPRequest) -> Any:
        """Continue a text."""
        handle = find_model(models, body.model, generates=True)
        prompts = [read_prompt(handle, prompt) for prompt in as_list(body.prompt)]
        if len(prompts) * (body.n or 1) > MAX_WAITING:
            raise APIError(400, f"{len(prompts)} prompts x n={body.n} are too many; {MAX_WAITING:,} are the most")
        requests = [_completion_request(handle, body, prompt) for prompt in prompts]
        echo = prompts if body.echo else None
        form = ResponseFormat(handle.name, handle.tokenizer, chat=False, alternatives=body.logprobs, echo=echo)
        return await _respond(handle, requests, form, body, http)

    @routes.post("/chat/completions")
    async def chat_completions(body: ChatBody, http: HTTPRequest) -> Any:
        """Answer the last message of a chat."""
        handle = find_model(models, body.model, generates=True)
        request = _chat_request(handle, body)
        alternatives = (body.top_logprobs or 0) if body.logprobs else None
        form = ResponseFormat(handle.name, handle.tokenizer, chat=True, alternatives=alternatives, echo=None)
        return await _respond(handle, [request], form, body, http)

    @routes.post("/embeddings")
    async def embeddings(body: EmbeddingBody) -> Any:
        """A vector for each text."""
        handle = find_model(models, body.model)
        if handle.worker is not None:
            raise APIError(400, f"{handle.name} gives no vectors; name an encoder, for example minilm-l6")
        width = handle.model.config.n_embd
        if body.dimensions not in (None, width):
            message = f"dimensions: {handle.name} gives {width}, and no others; leave it out"
            raise APIError(400, message, param="dimensions")
        texts = as_list(body.input)
        for text in texts:
            handle.check_tokens(text if isinstance(text, list) else (), "input")
        vectors = await run_in_threadpool(handle.run_alone, embed, handle.model, handle.tokenizer, texts, cut=False)
        n = sum(len(handle.tokenizer.encode(text) if isinstance(text, str) else text) for text in texts)
        encode = _base64 if body.encoding_format == "base64" else list
        data = [
            {"object": "embedding", "index": i, "embedding": encode(vector)}
            for i, vector in enumerate(vectors.tolist())
        ]
        return {"object": "list", "data": data, "model": handle.name, "usage": usage(n)}

    return routes


async def _respond(
    handle: ModelHandle, requests: list[Request], form: ResponseFormat, body: WritingBody, http: HTTPRequest
) -> Any:
    """The response to these requests, whole or as a stream."""
    assert handle.worker is not None
    submission = Submission(handle.worker, requests)
    await submission.submit()
    if body.stream:
        with_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        return event_stream(form.stream(submission, with_usage=with_usage))
    try:
        return form.whole(submission, await unless_disconnected(submission.gather(), http))
    finally:
        submission.cancel()


def read_prompt(handle: ModelHandle, given: str | list[int]) -> Prompt:
    """A text or ids as the model reads them. Raises `APIError`."""
    if not isinstance(given, str):
        handle.check_tokens(given, "prompt")
        return Prompt(given, 0, handle.tokenizer.stream_decoder(after=given).before)
    ids = handle.prompt_ids(given)
    return Prompt(ids, len(ids) - len(handle.tokenizer.encode(given)), given)


def _completion_request(handle: ModelHandle, body: CompletionBody, prompt: Prompt) -> Request:
    handle.check_tokens(prompt.ids, "prompt")
    handle.check_length(len(prompt.ids))
    return _request(
        handle,
        body,
        prompt.ids,
        max_new_tokens=new_tokens_of(handle.model, len(prompt.ids), body.max_tokens, DEFAULT_TOKENS),
        alternatives=body.logprobs or 0,
        score_prompt=bool(body.echo and body.logprobs is not None),
    )


def _chat_request(handle: ModelHandle, body: ChatBody) -> Request:
    ids = handle.chat_ids(body.messages, instead="use /v1/completions")
    handle.check_tokens(ids, "messages")
    handle.check_length(len(ids), free=1, param="messages")
    free = handle.block_size - len(ids)  # a chat does not slide: it would lose its beginning
    given = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    return _request(
        handle,
        body,
        ids,
        max_new_tokens=min(new_tokens_of(handle.model, len(ids), given, free), free),
        alternatives=body.top_logprobs or 0,
        end_tokens=frozenset(handle.tokenizer.chat.turn_ends),
    )


def _request(handle: ModelHandle, body: WritingBody, ids: list[int], **fields: Any) -> Request:
    """The engine's request for these ids and the fields that completions and chats share."""
    handle.check_tokens(map(int, body.logit_bias or ()), "logit_bias")
    seed = random.SystemRandom().randrange(1 << 62) if body.seed is None else body.seed
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Request(
        ids=tuple(ids),
        samples=body.n or 1,
        sampling=sampling_of(handle.model, body.sampling_fields() | {"seed": seed}),
        stop=tuple(stop),
        logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
        **fields,
    )


def _describe(handle: ModelHandle) -> dict[str, Any]:
    card = {"id": handle.name, "object": "model", "created": handle.created, "owned_by": "glassformer"}
    return card | {"defaults": handle.defaults}


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
