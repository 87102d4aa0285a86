"""From bodies to requests of the engine."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

from glassformer.errors import UsageError
from glassformer.generation import Request, new_tokens_of, sampling_of
from glassformer.generation.generate import prompt_ids as prompt_ids_of
from glassformer.generation.requests import check_ids
from glassformer.models import settings_of
from glassformer.server.errors import Refused
from glassformer.server.schemas import ChatBody, CompletionBody, Drawing
from glassformer.server.serving import Served

DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it
SAMPLING = ("temperature", "top_k", "top_p", "min_p", "repetition_penalty")  # fields of bodies, and of `Sampling`


def named(models: dict[str, Served], name: str | None, *, writes: bool = False) -> Served:
    """The model of this name, the first one where none is named. Raises `Refused`."""
    if name is None:
        name = next(iter(models))
    if name not in models:
        raise Refused(
            404, f"there is no model {name!r}; there are: {', '.join(models)}", code="model_not_found", param="model"
        )
    if writes and models[name].worker is None:
        raise Refused(400, f"{name} writes nothing; it gives vectors: use /v1/embeddings", param="model")
    return models[name]


@dataclass(frozen=True)
class Prompt:
    """What a completion goes on from.

    ids: what the model reads. n_added: how many of them, at the beginning, the client did not send: the token that this
    model's texts begin with, or what stands for an empty prompt. text: what the client sent, for `echo`; of ids their
    text, less a character that they leave unfinished, which comes with the answer.
    """

    ids: list[int]
    n_added: int
    text: str


def read_prompt(served: Served, given: str | list[int]) -> Prompt:
    """A text or ids as a model reads them. Raises `Refused`."""
    tokenizer = served.tokenizer
    if not isinstance(given, str):
        check_tokens(served, given, "prompt")
        return Prompt(given, 0, tokenizer.stream_decoder(after=given).before)
    ids = prompt_ids(served, given)
    return Prompt(ids, len(ids) - len(tokenizer.encode(given)), given)


def completion_request(served: Served, body: CompletionBody, prompt: Prompt) -> Request:
    """The engine's request for one prompt of a body. Raises `Refused`."""
    tokens = new_tokens_of(served.model, len(prompt.ids), body.max_tokens, DEFAULT_TOKENS)
    score = bool(body.echo and body.logprobs is not None)
    return _request(served, body, prompt.ids, tokens, alternatives=body.logprobs or 0, score=score)


def prompt_ids(served: Served, prompt: str) -> list[int]:
    """The ids that a model reads for a text, never none: what it begins with stands for an empty one."""
    return prompt_ids_of(served.tokenizer, prompt, settings_of(served.model).bos_token_id)


def check_tokens(served: Served, ids: Iterable[int], param: str) -> None:
    """Raise `Refused` for an id that the tokenizer or the model's table does not have."""
    try:
        check_ids(ids, served.tokenizer, served.model.config.vocab_size)
    except UsageError as error:
        raise Refused(400, str(error), param=param) from None


def check_length(served: Served, n: int, *, room: int = 0, param: str = "prompt") -> None:
    """Raise `Refused` for more tokens than a model reads, or fewer than `room` places left for an answer."""
    block_size = served.model.config.block_size
    if n + room > block_size:
        raise Refused(
            400,
            f"the prompt has {n:,} tokens and {served.name} reads {block_size:,} at most; shorten it",
            code="context_length_exceeded",
            param=param,
        )


def chat_request(served: Served, body: ChatBody) -> Request:
    """The engine's request for a chat. Raises `Refused`, and what the template has against the messages."""
    chat = served.tokenizer.chat
    messages = [{"role": message.role, "content": message.text} for message in body.messages]
    ids = chat.encode(messages, add_generation_prompt=True)
    room = served.model.config.block_size - len(ids)
    asked = body.max_completion_tokens if body.max_completion_tokens is not None else body.max_tokens
    # a chat does not slide: it would lose its beginning
    tokens = min(new_tokens_of(served.model, len(ids), asked, room), room)
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
    check_tokens(served, ids, "prompt" if ends is None else "messages")
    check_tokens(served, map(int, body.logit_bias or ()), "logit_bias")
    check_length(served, len(ids), room=0 if ends is None else 1, param="prompt" if ends is None else "messages")
    seed = random.SystemRandom().randrange(1 << 62) if body.seed is None else body.seed
    stop = [body.stop] if isinstance(body.stop, str) else body.stop or []
    return Request(
        ids=tuple(ids),
        max_new_tokens=tokens,
        samples=body.n or 1,
        sampling=sampling_of(served.model, {name: getattr(body, name) for name in SAMPLING} | {"seed": seed}),
        stop=tuple(stop),
        end_tokens=ends,
        alternatives=alternatives,
        logit_bias={int(token): bias for token, bias in (body.logit_bias or {}).items()},
        score_prompt=score,
    )
