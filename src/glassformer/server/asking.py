"""From bodies to requests of the engine."""

from __future__ import annotations

import random
from typing import Any

from glassformer.generation import Request, Sampling
from glassformer.server.errors import Refused
from glassformer.server.schemas import ChatBody, CompletionBody, Drawing
from glassformer.server.serving import Served

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it


def completion_request(served: Served, body: CompletionBody, prompt: Any) -> Request:
    """The engine's request for one prompt of a body. Raises `Refused`."""
    tokenizer = served.tokenizer
    ids = tokenizer.encode(prompt) if isinstance(prompt, str) else list(prompt)
    if isinstance(prompt, str) and tokenizer.starts_with is not None:
        ids = [tokenizer.starts_with, *ids]
    if not ids:
        ids = [tokenizer.end_of_text] if tokenizer.end_of_text is not None else tokenizer.encode("\n") or [0]
    tokens = DEFAULT_TOKENS if body.max_tokens is None else body.max_tokens
    return _request(
        served, body, ids, tokens, alternatives=body.logprobs or 0, score=bool(body.echo and body.logprobs is not None)
    )


def chat_request(served: Served, body: ChatBody) -> Request:
    """The engine's request for a chat. Raises `Refused`, and what the template has against the messages."""
    chat = served.tokenizer.chat
    messages = [{"role": message.role, "content": message.text} for message in body.messages]
    ids = chat.encode(messages, add_generation_prompt=True)
    room = served.model.config.block_size - len(ids)
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    tokens = room if asked is None else min(asked, room)  # a chat does not slide: it would lose its beginning
    ends = frozenset(chat.turn_ends)
    return _request(served, body, ids, max(tokens, 0), alternatives=body.top_logprobs or 0, ends=ends)


def _request(
    served: Served,
    body: Drawing,
    ids: list[int],
    tokens: int,
    *,
    alternatives: int,
    score: bool = False,
    ends: frozenset[int] | None = None,
) -> Request:
    block_size = served.model.config.block_size
    if len(ids) > block_size or (ends is not None and len(ids) >= block_size):
        raise Refused(
            400,
            f"the prompt has {len(ids):,} tokens and {served.name} reads {block_size:,} at most; shorten it",
            code="context_length_exceeded",
            param="prompt",
        )
    seed = random.SystemRandom().randrange(1 << 62) if body.seed is None else body.seed
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    sampling: dict[str, Any] = {
        "temperature": body.temperature,
        "top_p": body.top_p,
        "top_k": body.top_k,
        "min_p": body.min_p,
        "repetition_penalty": body.repetition_penalty,
    }
    return Request(
        ids=tuple(ids),
        max_new_tokens=tokens,
        samples=body.n or 1,
        sampling=Sampling(seed=seed, **{name: value for name, value in sampling.items() if value is not None}),
        stop=tuple(stop),
        end_tokens=ends,
        alternatives=alternatives,
        logit_bias=_biases(body.logit_bias or {}),
        score_prompt=score,
    )


def _biases(given: dict[str, float]) -> dict[int, float]:
    try:
        return {int(token): max(-100.0, min(100.0, bias)) for token, bias in given.items()}
    except ValueError:
        raise Refused(400, "logit_bias names a token that is no number", param="logit_bias") from None
