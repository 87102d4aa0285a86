"""Bodies of answers, in OpenAI's shapes: completions, chats, their pieces while they stream, log-probabilities."""

from __future__ import annotations

import math
import time
import uuid
from dataclasses import replace
from itertools import accumulate
from typing import Any

from glassformer.generation import Piece
from glassformer.processors.tokenizers import Tokenizer
from glassformer.server.asking import Prompt

NO_TOKEN = -1  # of a piece that is text alone
REASONS = {"length": "length", "stop": "stop", "end_of_text": "stop"}


class Shape:
    """One answer under way: its id, its time, its model, and whether it is a chat.

    alternatives: how many of the likeliest tokens are told beside each one; None: no log-probabilities at all.
    """

    def __init__(self, model: str, tokenizer: Tokenizer, *, chat: bool, alternatives: int | None):
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created, self.model, self.tokenizer = int(time.time()), model, tokenizer
        self.chat, self.alternatives = chat, alternatives

    def whole(self, pieces: list[list[Piece]], reasons: list[str], usage: dict[str, int]) -> Any:
        """The body of an answer that is told at once: of each choice the pieces, those of an echoed prompt first."""
        choices = []
        for index, (row, reason) in enumerate(zip(pieces, reasons, strict=True)):
            text = "".join(piece.text for piece in row)
            choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": self._logprobs(row, 0)}
            choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            choices.append(choice)
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage}

    def part(self, index: int, pieces: list[Piece], reason: str | None, *, at: int) -> Any:
        """The body of one part of an answer that streams. at: how many characters of the choice came before."""
        text = "".join(piece.text for piece in pieces)
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": self._logprobs(pieces, at)}
        choice |= {"delta": {"content": text} if text else {}} if self.chat else {"text": text}
        return {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": [choice]}

    def first(self, index: int) -> Any:
        """The part of a chat that says who speaks, before all others of its choice."""
        choice = {"index": index, "finish_reason": None, "logprobs": None}
        delta = {"delta": {"role": "assistant", "content": ""}}
        return {**self._head("chat.completion.chunk"), "choices": [choice | delta]}

    def last(self, usage: dict[str, int]) -> Any:
        """The part with the counts, after all others."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, pieces: list[Piece], at: int) -> Any:
        """Of all tokens but the one that ends a text, which is no part of it."""
        if self.alternatives is None:
            return None
        starts = accumulate((len(piece.text) for piece in pieces), initial=at)
        shown = [(p, start) for p, start in zip(pieces, starts, strict=False) if _is_text(p)]
        pieces, offsets = [p for p, _ in shown], [start for _, start in shown]
        if self.chat:
            return {"content": [{**self._token(p.token, p.probability), "top_logprobs": self._top(p)} for p in pieces]}
        return {
            "tokens": [spelled(self.tokenizer, piece.token) for piece in pieces],
            "token_logprobs": [None if math.isnan(p.probability) else logarithm(p.probability) for p in pieces],
            "top_logprobs": [None if math.isnan(p.probability) else self._table(p) for p in pieces],
            "text_offset": offsets,
        }

    def _table(self, piece: Piece) -> dict[str, float]:
        """Log-probabilities by the text of a token. Several tokens may have the same text (a byte and a character, a
        word's beginning and its end): the token itself has it first, and the others are called by their ids."""
        names = {spelled(self.tokenizer, piece.token): piece.token}
        table = {}
        for other in piece.alternatives:
            name = spelled(self.tokenizer, other.token)
            if names.setdefault(name, other.token) != other.token:
                name = f"token_id:{other.token}"
            table[name] = logarithm(other.probability)
        return table

    def _top(self, piece: Piece) -> list[Any]:
        return [self._token(other.token, other.probability) for other in piece.alternatives]

    def _token(self, token: int, probability: float) -> dict[str, Any]:
        raw = self.tokenizer.token_bytes(token)
        return {"token": spelled(self.tokenizer, token), "logprob": logarithm(probability), "bytes": list(raw)}


def _is_text(piece: Piece) -> bool:
    return piece.token != NO_TOKEN and piece.finish_reason != "end_of_text"


def spelled(tokenizer: Tokenizer, token: int) -> str:
    """A token's text; a part of a character by its bytes, as OpenAI has it: `bytes:\\xe2\\x82`."""
    raw = tokenizer.token_bytes(token)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


def logarithm(probability: float) -> float:
    """In nats; what is too unlikely for a number is -9999, as OpenAI has it: JSON knows no infinity.

    >>> logarithm(1.0), logarithm(0.0)
    (0.0, -9999.0)
    """
    return math.log(probability) if probability > 0 else -9999.0


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Counts of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def echoed(tokenizer: Tokenizer, prompt: Prompt, scored: list[Piece], *, logprobs: bool) -> list[Piece]:
    """A prompt as the pieces that its answer begins with; together they are its text, whatever was made of it.

    scored: what the model thought of its tokens but the first, before which nothing stands.
    """
    own = [Piece("", prompt.ids[0], "", math.nan, math.nan), *scored][prompt.n_added :] if logprobs else []
    if not own:
        return [Piece(prompt.text, NO_TOKEN, "", math.nan, math.nan)]
    decoder, at, pieces = tokenizer.stream_decoder(), 0, []
    for piece in own[:-1]:
        n = len(decoder.push(piece.token))
        pieces.append(replace(piece, text=prompt.text[at : at + n]))
        at += n
    return [*pieces, replace(own[-1], text=prompt.text[at:])]
