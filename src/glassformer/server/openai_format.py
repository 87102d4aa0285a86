"""Answers in OpenAI's shapes: completions and chats, whole or as streamed parts, with log-probabilities."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

from glassformer.generation import Alternative, Piece
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.middleware import APIError
from glassformer.server.streaming import Submission, event_line

NO_TOKEN = -1  # of a piece that is text only
FINISH_REASONS = {"length": "length", "stop": "stop", "end_of_text": "stop"}


@dataclass(frozen=True)
class Prompt:
    """The prompt of a completion.

    ids: what the model reads. n_added: how many of them, at the beginning, the client did not send: the token that this
    model's texts begin with, or what stands for an empty prompt. text: what the client sent, for `echo`; of ids their
    text, without a last character that they leave unfinished, which comes with the answer.
    """

    ids: list[int]
    n_added: int
    text: str


class ResponseFormat:
    """The bodies of one response.

    Args:
        chat: whether it answers a chat; else a completion.
        alternatives: how many of the most likely tokens are listed for each one; None: no log-probabilities at all.
        echo: the prompts, one a request, that the answers begin with; None: they do not.
    """

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
            choices.append(
                {"index": index, "finish_reason": reason, "logprobs": self._logprobs(pieces, 0)}
                | ({"message": {"role": "assistant", "content": text}} if self.chat else {"text": text})
            )
        head = self._head | {"object": "chat.completion" if self.chat else "text_completion"}
        return head | {"choices": choices, "usage": _usage(submission, sum(map(len, rows)))}

    async def stream(self, submission: Submission, *, with_usage: bool) -> AsyncIterator[str]:
        """Server-sent events, one a token. A client that disconnects ends this, and with it the requests."""
        n_pieces = 0
        indices = {sample: index for index, sample in enumerate(submission.samples)}
        lengths = dict.fromkeys(submission.samples, -1)  # characters so far; -1: its choice has not begun
        head = self._head | {"object": "chat.completion.chunk" if self.chat else "text_completion"}
        no_usage: dict[str, None] = {"usage": None} if with_usage else {}

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
                yield part(sample, [piece], FINISH_REASONS[piece.finish_reason] if piece.finish_reason else None)
            for sample in [sample for sample, length in lengths.items() if length < 0]:  # no tokens were requested
                for line in beginning(sample):
                    yield line
                yield part(sample, [], "length")
            if with_usage:
                yield event_line(head | {"choices": [], "usage": _usage(submission, n_pieces)})
            yield "data: [DONE]\n\n"
        except APIError as error:
            yield event_line(error.body())
        finally:
            submission.cancel()

    def _echoed(self, submission: Submission, request: int) -> list[Piece]:
        """The prompt as the pieces that its answer begins with; together they are the text that the client sent."""
        if self.echo is None:
            return []
        prompt = self.echo[request]
        first = Piece("", prompt.ids[0], "", math.nan, math.nan)  # nothing stands before it, so it has no probability
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
        """Of all tokens but the one that ends a text, which is no part of it. at: characters before these pieces."""
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
        """Log-probabilities by the text of a token. Several tokens may have one text (a byte and a character, a word's
        beginning and its end): it is the text of the token itself, and the others are called by their ids."""
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


def _is_text(piece: Piece) -> bool:
    return piece.token != NO_TOKEN and piece.finish_reason != "end_of_text"


def _usage(submission: Submission, completion: int) -> dict[str, int]:
    return usage(sum(len(request.ids) for request in submission.requests), completion_tokens=completion)


def usage(prompt_tokens: int, **others: int) -> dict[str, int]:
    """Counts of tokens."""
    total = prompt_tokens + sum(others.values())
    return {"prompt_tokens": prompt_tokens, **others, "total_tokens": total}


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token's text; a part of a character by its bytes, as OpenAI does: `bytes:\\xe2\\x82`."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def log(probability: float) -> float:
    """In nats; what is too unlikely for a number is -9999, as OpenAI has it: JSON knows no infinity.

    >>> log(1.0), log(0.0)
    (0.0, -9999.0)
    """
    return math.log(probability) if probability > 0 else -9999.0
