"""Bodies of answers, in OpenAI's shapes: completions, chats, their pieces while they stream, log-probabilities."""

from __future__ import annotations

import math
import time
import uuid
from typing import Any

from glassformer.generation import Piece
from glassformer.tokenizers import Tokenizer

REASONS = {"length": "length", "stop": "stop", "end_of_text": "stop"}


class Shape:
    """One answer under way: its id, its time, its model, and whether it is a chat."""

    def __init__(self, model: str, tokenizer: Tokenizer, *, chat: bool, logprobs: bool, alternatives: int):
        self.id = f"{'chatcmpl' if chat else 'cmpl'}-{uuid.uuid4().hex}"
        self.created, self.model, self.tokenizer = int(time.time()), model, tokenizer
        self.chat, self.logprobs, self.alternatives = chat, logprobs, alternatives

    def whole(self, texts: list[str], pieces: list[list[Piece]], reasons: list[str], usage: dict[str, int]) -> Any:
        """The body of an answer that is told at once."""
        choices = []
        for index, (text, row, reason) in enumerate(zip(texts, pieces, reasons, strict=True)):
            choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": self._logprobs(row)}
            choice |= {"message": {"role": "assistant", "content": text}} if self.chat else {"text": text}
            choices.append(choice)
        kind = "chat.completion" if self.chat else "text_completion"
        return {**self._head(kind), "choices": choices, "usage": usage}

    def piece(self, index: int, text: str, pieces: list[Piece], reason: str | None, *, first: bool = False) -> Any:
        """The body of one piece of an answer that streams."""
        choice: dict[str, Any] = {"index": index, "finish_reason": reason, "logprobs": self._logprobs(pieces)}
        if self.chat:
            content = {"content": text} if text or first else {}
            choice["delta"] = {"role": "assistant", **content} if first else content
        else:
            choice["text"] = text
        return {**self._head("chat.completion.chunk" if self.chat else "text_completion"), "choices": [choice]}

    def last(self, usage: dict[str, int]) -> Any:
        """The piece that tells the counts, after all others."""
        kind = "chat.completion.chunk" if self.chat else "text_completion"
        return {**self._head(kind), "choices": [], "usage": usage}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _logprobs(self, pieces: list[Piece]) -> Any:
        if not self.logprobs:
            return None
        if self.chat:
            return {"content": [{**self._token(p.token, p.probability), "top_logprobs": self._top(p)} for p in pieces]}
        return {
            "tokens": [self._text(piece.token) for piece in pieces],
            "token_logprobs": [None if math.isnan(p.probability) else logarithm(p.probability) for p in pieces],
            "top_logprobs": [
                {self._text(other.token): logarithm(other.probability) for other in piece.alternatives}
                for piece in pieces
            ],
            "text_offset": self._offsets(pieces),
        }

    def _top(self, piece: Piece) -> list[Any]:
        return [self._token(other.token, other.probability) for other in piece.alternatives[: self.alternatives]]

    def _token(self, token: int, probability: float) -> dict[str, Any]:
        spelled = self.tokenizer.token_bytes(token)
        return {"token": self._text(token), "logprob": logarithm(probability), "bytes": list(spelled)}

    def _text(self, token: int) -> str:
        return self.tokenizer.token_bytes(token).decode("utf-8", "replace")

    def _offsets(self, pieces: list[Piece]) -> list[int]:
        offsets, at = [], 0
        for piece in pieces:
            offsets.append(at)
            at += len(self._text(piece.token))
        return offsets


def logarithm(probability: float) -> float:
    """In nats; what is too unlikely for a number is -9999, as OpenAI has it: JSON knows no infinity.

    >>> logarithm(1.0), logarithm(0.0)
    (0.0, -9999.0)
    """
    return math.log(probability) if probability > 0 else -9999.0


def usage(prompt: int, completion: int) -> dict[str, int]:
    """Counts of tokens."""
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}


def given_prompt(tokenizer: Tokenizer, ids: list[int], scored: list[Piece], alternatives: int) -> list[Piece]:
    """The prompt as pieces, for `echo`: the first token has no probability, since nothing stands before it."""
    text = tokenizer.token_text
    first = Piece(text(ids[0]), ids[0], text(ids[0]), math.nan, math.nan, [])
    return [first, *scored]
