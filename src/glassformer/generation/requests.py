"""What is asked of the engine, and what it tells: a request, the rows that answer it, the events of a step."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.rules import TokenRules
from glassformer.generation.sampling import Sampling
from glassformer.generation.text import Alternative, Piece, StopStrings
from glassformer.generation.windows import check_window
from glassformer.models import settings_of
from glassformer.processors.tokenizers import Tokenizer

ENDLESS = sys.maxsize  # as `max_new_tokens`: go on until the reader stops
MOST_BIAS = 1e4  # what is added to a logit: enough to forbid or to force, and still a number


@dataclass(frozen=True)
class Request:
    """Go on from these tokens.

    Args:
        ids: the prompt, at least one token.
        max_new_tokens: how many tokens at most; 0 scores the prompt and writes nothing.
        samples: how many continuations. sampling: how tokens are drawn; sample i has the seed `seed + i`.
        stop: strings that end a sample, and are no part of its text. end_tokens: tokens that do; None: the tokenizer's
            `ends`.
        alternatives: how many of the most likely tokens are told beside each one.
        logit_bias: what is added to the logits of some tokens before one is drawn. Probabilities that are told are the
            model's own, without it.
        score_prompt: tell the probability of every token of the prompt as well.
        window: what to do beyond block_size, `half` or `exact` (see `windows.py`).

    Raises:
        UsageError: a value is out of range.
    """

    ids: tuple[int, ...]
    max_new_tokens: int = 200
    samples: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()
    end_tokens: frozenset[int] | None = None
    alternatives: int = 0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    score_prompt: bool = False
    window: str = "half"

    def __post_init__(self) -> None:
        check_window(self.window)
        for name, value, least in (
            ("max_new_tokens", self.max_new_tokens, 0),
            ("samples", self.samples, 1),
            ("alternatives", self.alternatives, 0),
            ("the number of the prompt's tokens", len(self.ids), 1),
        ):
            if value < least:
                raise UsageError(f"{name}={value} is too small; use {least} or more")
        for token, bias in self.logit_bias.items():
            if not abs(bias) <= MOST_BIAS:
                raise UsageError(
                    f"logit_bias of token {token} is {bias}; use a number from -{MOST_BIAS:g} to {MOST_BIAS:g}"
                )

    def check_tokens(self, tokenizer: Tokenizer, n_rows: int) -> None:
        """Raise `UsageError` for a token that the tokenizer, or the model's table of so many rows, does not have."""
        check_ids((*self.ids, *self.logit_bias), tokenizer, n_rows)


def check_ids(ids: Iterable[int], tokenizer: Tokenizer, n_rows: int) -> None:
    """Raise `UsageError` for an id that is no token, or that the model's table of `n_rows` rows has no vector for.

    Tables are often longer than the vocabulary, up to a round number; what stands in such rows was never trained.
    """
    most, missing = min(n_rows, tokenizer.vocab_size), set(tokenizer.missing_ids)
    for token in ids:
        if n_rows <= token < tokenizer.vocab_size and token not in missing:
            raise UsageError(
                f"the tokenizer has token {token} ({tokenizer.token_text(token)}) and the model has no vector for it "
                f"(0 to {most - 1}); leave it out"
            )
        if not 0 <= token < most or token in missing:
            holes = f", without {plural(len(missing), 'id')}" if missing else ""
            raise UsageError(f"token {token} is not in the vocabulary (0 to {most - 1}{holes})")


class Event(NamedTuple):
    """What a step of the engine gave to a request: a token of one of its samples, or the scored prompt, or the error
    that ended all of its samples."""

    request: int
    piece: Piece | None = None
    prompt: tuple[Piece, ...] = ()
    error: Exception | None = None


class Row:
    """One sample under way: its tokens so far, its generator, its half-decoded characters, its stop strings."""

    def __init__(self, number: int, request: Request, sample: int, tokenizer: Tokenizer, model: Any):
        self.number, self.request, self.sample, self.tokenizer = number, request, sample, tokenizer
        settings, block_size = settings_of(model), model.config.block_size
        settings.check()
        self.ids = list(request.ids)  # without those that an endless text has let go of
        self.dropped = 0  # how many those are
        self.block_size = block_size
        self.start = max(0, len(self.ids) - block_size)  # the first token that the model sees
        self.generator = torch.Generator().manual_seed(request.sampling.seed + sample)
        self.draws = replace(request.sampling, seed=0)  # rows that are equal in this draw alike
        self.decoder = tokenizer.stream_decoder(after=tokenizer.text_ids(request.ids))
        self.stop = StopStrings((*request.stop, *settings.stop_strings))
        self.end_tokens = tokenizer.ends if request.end_tokens is None else request.end_tokens
        n_logits = min(tokenizer.vocab_size, model.config.vocab_size)
        self.rules = TokenRules(settings, self.end_tokens, n_logits, n_prompt=len(request.ids))

    @property
    def seen(self) -> list[int]:
        """The tokens that the model looks at."""
        return self.ids[self.start :]

    @property
    def left(self) -> int:
        """How many tokens may still be written."""
        return len(self.request.ids) + self.request.max_new_tokens - len(self.ids) - self.dropped

    @property
    def need(self) -> int:
        """How many positions it takes at the most."""
        return min(self.block_size, len(self.ids) - self.start + self.left)

    def slide(self) -> bool:
        """Let go of what no longer fits; whether that was so, and all has to be read anew."""
        overflow = len(self.ids) - self.start - self.block_size
        if overflow <= 0:
            return False
        exact = self.request.window == "exact"
        self.start = self.start + overflow if exact else len(self.ids) - max(1, self.block_size // 2)
        if self.request.max_new_tokens == ENDLESS:  # so that it takes no more memory however long it goes on
            self.dropped += self.start
            del self.ids[: self.start]
            self.start = 0
        return True

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` changes anything."""
        return bool(self.request.logit_bias) or self.rules.active

    def adjust(self, logits_V: Tensor) -> None:
        """Change the logits of the next token as the request and the model's folder ask for, in place."""
        for token, bias in self.request.logit_bias.items():
            logits_V[token] += bias
        if self.rules.active:
            self.rules.apply(logits_V, self.ids, last=self.left == 1, dropped=self.dropped)

    def take(self, token: int, probability: float, chance: float, others: list[Alternative]) -> Piece:
        """One more token."""
        self.ids.append(token)
        ended = token in self.end_tokens
        text = self.stop.push("" if ended else self.decoder.push(token))
        reason = "stop" if self.stop.found else "end_of_text" if ended else None if self.left else "length"
        if reason in ("end_of_text", "length"):
            text += self.stop.push(self.decoder.finish()) + self.stop.finish()
            reason = "stop" if self.stop.found else reason
        return Piece(
            text=text,
            token=token,
            token_text=self.tokenizer.token_text(token),
            probability=probability,
            chance=chance,
            alternatives=others,
            sample=self.sample,
            finish_reason=reason,
        )
