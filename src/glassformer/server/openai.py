"""OpenAI's API: its paths and bodies, so that its clients work with another `base_url` and nothing else.

GET  /v1/models  /v1/models/NAME        POST /v1/completions
POST /v1/embeddings                     POST /v1/chat/completions
"""

from __future__ import annotations

import base64
import math
import random
import struct
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any

from fastapi import APIRouter
from fastapi import Request as HTTPRequest
from starlette.concurrency import run_in_threadpool

from glassformer.errors import MissingExtraError, UsageError
from glassformer.generation import Alternative, Grammar, Piece, Request, embed, new_tokens_of, sampling_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.middleware import APIError, event_line, event_stream, unless_disconnected
from glassformer.server.openai_schemas import ChatBody, CompletionBody, EmbeddingBody, WritingBody, as_list
from glassformer.server.router import AUTO, Router, text_to_route
from glassformer.server.tool_text import ToolText
from glassformer.server.worker import MAX_WAITING, ModelHandle, Submission, find_model

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it
NO_TOKEN = -1  # of a piece that is only text
FINISH_REASONS = {"length": "length", "stop": "stop", "end_of_text": "stop"}


def openai_routes(models: Mapping[str, ModelHandle], router: Router | None = None) -> APIRouter:
    """The paths under `/v1` for these models. With a router there is one more, "auto", which stands for one of them."""
    routes = APIRouter(prefix="/v1")

    async def writer_for(body: ChatBody | CompletionBody) -> ModelHandle:
        """The model that a request names, or that the router names for it."""
        name = body.model
        if router is not None and name in (None, AUTO):
            name = await run_in_threadpool(router.choose, text_to_route(body))
        return find_model(models, name, generates=True)

    @routes.get("/models")
    async def list_models() -> Any:
        cards = [_describe(handle) for handle in models.values()]
        return {"object": "list", "data": cards if router is None else [_describe_router(router), *cards]}

    @routes.get("/models/{name:path}")
    async def get_model(name: str) -> Any:
        if router is not None and name == AUTO:
            return _describe_router(router)
        return _describe(find_model(models, name))

    @routes.post("/completions")
    async def completions(body: CompletionBody, http: HTTPRequest) -> Any:
        """Continue a text."""
        handle = await writer_for(body)
        prompts = [read_prompt(handle, prompt) for prompt in as_list(body.prompt)]
        if len(prompts) * (body.n or 1) > MAX_WAITING:
            raise APIError(400, f"{len(prompts)} prompts x n={body.n} are too many; {MAX_WAITING:,} are the most")
        grammar = await _grammar(handle, body)
        requests = [_completion_request(handle, body, prompt, grammar) for prompt in prompts]
        echo = prompts if body.echo else None
        form = ResponseFormat(handle.name, handle.tokenizer, chat=False, alternatives=body.logprobs, echo=echo)
        return await _respond(handle, requests, form, body, http)

    @routes.post("/chat/completions")
    async def chat_completions(body: ChatBody, http: HTTPRequest) -> Any:
        """Answer the last message of a chat."""
        handle = await writer_for(body)
        request = _chat_request(handle, body, await _grammar(handle, body))
        alternatives = (body.top_logprobs or 0) if body.logprobs else None
        form = ResponseFormat(handle.name, handle.tokenizer, chat=True, alternatives=alternatives, echo=None)
        if body.schemas:
            opening = "" if body.forced is None else handle.tool_form.opening(body.forced or None)
            form.tools = partial(ToolText, handle.tool_form, opening, 1 if body.parallel_tool_calls is False else None)
        return await _respond(handle, [request], form, body, http)

    @routes.post("/embeddings")
    async def embeddings(body: EmbeddingBody) -> Any:
        """A vector for each text."""
        handle = find_model(models, body.model)
        if not handle.embeds:
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
        return {"object": "list", "data": data, "model": handle.name, "usage": {"prompt_tokens": n, "total_tokens": n}}

    return routes


async def _respond(
    handle: ModelHandle, requests: list[Request], form: ResponseFormat, body: WritingBody, http: HTTPRequest
) -> Any:
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


async def _grammar(handle: ModelHandle, body: WritingBody) -> Grammar | None:
    """What the answer must follow: JSON of a schema, the call of a tool that is required, or text and calls of strict
    functions; None: any text.

    Raises:
        APIError: the schema is refused; an optional package is missing.
    """
    if isinstance(body, ChatBody) and body.forced is not None:
        functions = {tool.function.name: tool.function.parameters for tool in body.tools or ()}
        if body.forced:
            functions = {body.forced: functions[body.forced]}
        key, param = handle.tool_form.key, "tools"
        make = partial(Grammar.call, handle.tokenizer, functions, key, named=bool(body.forced))
    elif isinstance(body, ChatBody) and body.schemas and any(tool.function.strict for tool in body.tools or ()):
        given = [tool.function for tool in body.tools or ()]
        functions = {f.name: f.parameters if f.strict else {"type": "object"} for f in given}
        make, param = partial(Grammar.may_call, handle.tokenizer, functions, handle.tool_form), "tools"
    elif body.response_format is not None and (schema := body.response_format.schema_of_answer) is not None:
        make, param = partial(Grammar.json_schema, handle.tokenizer, schema), "response_format"
    else:
        return None
    try:
        return await run_in_threadpool(handle.run_alone, make)
    except UsageError as error:
        raise APIError(400, str(error), param=param) from None
    except MissingExtraError as error:
        raise APIError(501, str(error), code="missing_extra", param=param) from None


def _completion_request(handle: ModelHandle, body: CompletionBody, prompt: Prompt, grammar: Grammar | None) -> Request:
    handle.check_tokens(prompt.ids, "prompt")
    handle.check_length(len(prompt.ids))
    return _request(
        handle,
        body,
        prompt.ids,
        max_new_tokens=new_tokens_of(handle.model, len(prompt.ids), body.max_tokens, DEFAULT_TOKENS),
        alternatives=body.logprobs or 0,
        score_prompt=bool(body.echo and body.logprobs is not None),
        grammar=grammar,
    )


def _chat_request(handle: ModelHandle, body: ChatBody, grammar: Grammar | None) -> Request:
    ids = handle.chat_ids(body.messages, instead="use /v1/completions", tools=body.schemas)
    if body.forced is not None:
        ids += handle.tool_form.opening_ids(handle.tokenizer, body.forced or None)
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
        grammar=grammar,
    )


def _request(handle: ModelHandle, body: WritingBody, ids: list[int], **fields: Any) -> Request:
    """The fields that completions and chats share."""
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


def _describe_router(router: Router) -> dict[str, Any]:
    card = {"id": AUTO, "object": "model", "created": router.created, "owned_by": "glassformer"}
    return card | {"routes_to": list(router.labels)}


def _base64(vector: list[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()


@dataclass(frozen=True)
class Prompt:
    """The prompt of a completion."""

    ids: list[int]  # that the model reads
    n_added: int  # ids at the beginning that the client did not send: the token that begins texts
    text: str  # for `echo`; of ids their text, without a last character that they leave incomplete


class ResponseFormat:
    """The bodies of one response.

    Args:
        chat: whether it answers a chat; else a completion.
        alternatives: how many of the most likely tokens are listed for each one; None: no log-probabilities at all.
        echo: the prompts, one a request, that the answers begin with; None: they do not.

    tools: makes what reads calls of tools out of a sample; None: all is text.
    """

    tools: Callable[[], ToolText] | None = None

    def __init__(
        self, model: str, tokenizer: Tokenizer, *, chat: bool, alternatives: int | None, echo: list[Prompt] | None
    ):
        self.tokenizer, self.chat, self.alternatives, self.echo = tokenizer, chat, alternatives, echo
        name = "chatcmpl" if chat else "cmpl"
        self._head = {"id": f"{name}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    def whole(self, submission: Submission, rows: list[list[Piece]]) -> Any:
        """The body of a whole answer. rows: the pieces of each sample."""
        choices = []
        for index, ((request, _), row) in enumerate(zip(submission.samples, rows, strict=True)):
            pieces = self._echoed(submission, request) + row
            text = "".join(piece.text for piece in pieces)
            reason = FINISH_REASONS[row[-1].finish_reason or "length"] if row else "length"
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if self.tools is not None and row:
                reader = self.tools()
                text = reader.push(text)
                rest, calls = reader.finish()
                message["content"] = text + rest
                if calls:
                    message |= {"content": message["content"].rstrip() or None, "tool_calls": calls}
                    reason = _reason_of(reason)
            choices.append(
                {"index": index, "finish_reason": reason, "logprobs": self._logprobs(pieces, 0)}
                | ({"message": message} if self.chat else {"text": text})
            )
        head = self._head | {"object": "chat.completion" if self.chat else "text_completion"}
        return head | {"choices": choices, "usage": _usage_of(submission, sum(map(len, rows)))}

    async def stream(self, submission: Submission, *, with_usage: bool) -> AsyncIterator[str]:
        """Server-sent events, one a token. A client that disconnects ends this, and with it the requests."""
        n_pieces = 0
        indices = {sample: index for index, sample in enumerate(submission.samples)}
        lengths = dict.fromkeys(submission.samples, -1)  # characters so far; -1: not begun
        head = self._head | {"object": "chat.completion.chunk" if self.chat else "text_completion"}
        no_usage: dict[str, None] = {"usage": None} if with_usage else {}
        readers = {} if self.tools is None else {sample: self.tools() for sample in submission.samples}

        def part(sample: tuple[int, int], pieces: list[Piece], reason: str | None, **fields: Any) -> str:
            text = "".join(piece.text for piece in pieces)
            logprobs = None if "delta" in fields else self._logprobs(pieces, lengths[sample])
            lengths[sample] += len(text)
            choice = {"index": indices[sample], "finish_reason": reason, "logprobs": logprobs}
            content: dict[str, Any] = {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
            return event_line(head | {"choices": [choice | content | fields]} | no_usage)

        def beginning(sample: tuple[int, int]) -> Iterator[str]:
            if lengths[sample] < 0:
                lengths[sample] = 0
                if self.chat:
                    yield part(sample, [], None, delta={"role": "assistant", "content": ""})
                if echoed := self._echoed(submission, sample[0]):
                    yield part(sample, echoed, None)

        try:
            async for request, piece in submission.pieces():
                sample = request, piece.sample
                n_pieces += 1
                for line in beginning(sample):
                    yield line
                reason = FINISH_REASONS[piece.finish_reason] if piece.finish_reason else None
                if reader := readers.get(sample):
                    text, calls = reader.push(piece.text), list[dict[str, Any]]()
                    if reason is not None:
                        rest, calls = reader.finish()
                        text += rest
                    piece = replace(piece, text=text)
                    if calls:
                        yield part(sample, [piece], None)
                        numbered = [{"index": i, **call} for i, call in enumerate(calls)]
                        yield part(sample, [], None, delta={"tool_calls": numbered})
                        yield part(sample, [], _reason_of(reason), delta={})
                        continue
                yield part(sample, [piece], reason)
            for sample in [sample for sample, length in lengths.items() if length < 0]:  # no tokens were requested
                for line in beginning(sample):
                    yield line
                yield part(sample, [], "length")
            if with_usage:
                yield event_line(head | {"choices": [], "usage": _usage_of(submission, n_pieces)})
            yield "data: [DONE]\n\n"
        except APIError as error:
            yield event_line(error.body())
        finally:
            submission.cancel()

    def _echoed(self, submission: Submission, request: int) -> list[Piece]:
        """The prompt as pieces; together they are the text that the client sent."""
        if self.echo is None:
            return []
        prompt = self.echo[request]
        first = Piece("", prompt.ids[0], "", math.nan, math.nan)  # the first token has no probability
        own = [first, *submission.prompts[request]][prompt.n_added :] if self.alternatives is not None else []
        if not own:
            return [Piece(prompt.text, NO_TOKEN, "", math.nan, math.nan)]
        decoder, at, pieces = self.tokenizer.stream_decoder(), 0, []
        for piece in own[:-1]:
            n = len(decoder.push(piece.token))
            pieces.append(replace(piece, text=prompt.text[at : at + n]))
            at += n
        return [*pieces, replace(own[-1], text=prompt.text[at:])]

    def _logprobs(self, pieces: list[Piece], at: int) -> Any:
        """Of all tokens except the one that ends a text. at: characters before these pieces."""
        if self.alternatives is None:
            return None
        starts = accumulate((len(piece.text) for piece in pieces), initial=at)
        shown = [(p, start) for p, start in zip(pieces, starts, strict=False) if _is_text(p)]
        if self.chat:
            tops = ([self._token(other) for other in piece.alternatives] for piece, _ in shown)
            return {"content": [self._token(p) | {"top_logprobs": t} for (p, _), t in zip(shown, tops, strict=True)]}
        scored = [(piece, not math.isnan(piece.probability)) for piece, _ in shown]
        return {
            "tokens": [spelled(self.tokenizer, piece.token) for piece, _ in shown],
            "token_logprobs": [log(piece.probability) if known else None for piece, known in scored],
            "top_logprobs": [self._table(piece) if known else None for piece, known in scored],
            "text_offset": [start for _, start in shown],
        }

    def _table(self, piece: Piece) -> dict[str, float]:
        """Log-probabilities by the text of a token. Where several tokens have one text (a byte and a character), it
        names the piece's own token, and the others are named by their ids."""
        names = {spelled(self.tokenizer, piece.token): piece.token}
        table = {}
        for other in piece.alternatives:
            name = spelled(self.tokenizer, other.token)
            if names.setdefault(name, other.token) != other.token:
                name = f"token_id:{other.token}"
            table[name] = log(other.probability)
        return table

    def _token(self, piece: Piece | Alternative) -> dict[str, Any]:
        raw = list(self.tokenizer.token_bytes(piece.token))
        return {"token": spelled(self.tokenizer, piece.token), "logprob": log(piece.probability), "bytes": raw}


def _reason_of(reason: str | None) -> str:
    """Why an answer with calls ended."""
    return "length" if reason == "length" else "tool_calls"


def _is_text(piece: Piece) -> bool:
    return piece.token != NO_TOKEN and piece.finish_reason != "end_of_text"


def _usage_of(submission: Submission, completion: int) -> dict[str, int]:
    prompt = sum(len(request.ids) for request in submission.requests)
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token's text; a part of a character by its bytes, as OpenAI does: `bytes:\\xe2\\x82`."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def log(probability: float) -> float:
    """In nats; -9999 for probability 0, as OpenAI does, because JSON has no infinity.

    >>> log(1.0), log(0.0)
    (0.0, -9999.0)
    """
    return math.log(probability) if probability > 0 else -9999.0
