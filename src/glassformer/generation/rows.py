"""One sample while it is generated."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.generation.filters import TokenRules
from glassformer.generation.requests import ENDLESS, Alternative, Piece, Request, most_likely, ranks
from glassformer.generation.stopping import StopStrings
from glassformer.models import settings_of
from glassformer.processors.tokenizers import Tokenizer


class Sampled(NamedTuple):
    """A token, its probability after temperature and filters, and the model's own (temperature 1, no filters).

    u: the random number in [0, 1) that sampled it; None at temperature 0.
    """

    token: int
    sampling_probability: float
    probability: float
    u: float | None = None


class Row:
    """A sample as tokens: its ids so far, its random generator, the rules for its next token.

    block_size: how many tokens the model sees. end_tokens: those that end it. finish_reason: None while it continues.
    """

    def __init__(self, request: Request, sample: int, rules: TokenRules, *, block_size: int):
        self.request, self.sample, self.rules, self.block_size = request, sample, rules, block_size
        self.ids = list(request.ids)  # without those that an endless text has dropped
        self.dropped = 0
        self.start = max(0, len(self.ids) - block_size)  # the first token that the model sees
        self.generator = torch.Generator().manual_seed(request.sampling.seed + sample)
        self.sampling = replace(request.sampling, seed=0)  # rows that are equal in it are sampled together
        self.finish_reason: str | None = None

    @property
    def seen(self) -> list[int]:
        """The tokens that the model sees."""
        return self.ids[self.start :]

    @property
    def left(self) -> int:
        """How many tokens may still be generated."""
        return len(self.request.ids) + self.request.max_new_tokens - len(self.ids) - self.dropped

    @property
    def need(self) -> int:
        """How many positions of a cache it takes at most."""
        return min(self.block_size, len(self.ids) - self.start + self.left)

    def slide(self) -> bool:
        """Drop from `seen` what no longer fits; True if so, and all that is seen has to be read again."""
        overflow = len(self.ids) - self.start - self.block_size
        if overflow <= 0:
            return False
        exact = self.request.window == "exact"
        self.start = self.start + overflow if exact else len(self.ids) - max(1, self.block_size // 2)
        if self.request.max_new_tokens == ENDLESS:  # constant memory, however long it continues
            self.dropped += self.start
            del self.ids[: self.start]
            self.start = 0
        return True

    @property
    def adjusts(self) -> bool:
        """Whether `adjust` changes anything."""
        return bool(self.request.logit_bias) or self.rules.active

    def adjust(self, logits_V: Tensor) -> None:
        """Apply the request's biases and the folder's rules to the logits of the next token, in place."""
        for token, bias in self.request.logit_bias.items():
            logits_V[token] += bias
        if self.rules.active:
            self.rules.apply(logits_V, self.ids, last=self.left == 1, dropped=self.dropped)

    def append(self, token: int) -> None:
        """One more token."""
        self.ids.append(token)
        self.finish_reason = "end_of_text" if token in self.rules.ends else None if self.left else "length"


class TextRow(Row):
    """A sample as text. number: of its request."""

    def __init__(self, number: int, request: Request, sample: int, tokenizer: Tokenizer, model: Any):
        settings = settings_of(model)
        settings.check()
        ends = tokenizer.ends if request.end_tokens is None else request.end_tokens
        n_logits = min(tokenizer.vocab_size, model.config.vocab_size)
        rules = TokenRules(settings, ends, n_logits, n_prompt=len(request.ids))
        super().__init__(request, sample, rules, block_size=model.config.block_size)
        self.number, self.tokenizer = number, tokenizer
        self.grammar = None if request.grammar is None else request.grammar.start(ends, n_logits)
        self.decoder = tokenizer.stream_decoder(after=tokenizer.text_ids(request.ids))
        self.stop = StopStrings((*request.stop, *settings.stop_strings))

    @property
    def adjusts(self) -> bool:
        return self.grammar is not None or super().adjusts

    def adjust(self, logits_V: Tensor) -> None:
        plain_V = logits_V.clone() if super().adjusts else logits_V
        super().adjust(logits_V)
        if self.grammar is None:
            return
        self.grammar.mask(logits_V)
        if not (logits_V > -torch.inf).any():  # the folder's rules leave nothing of what the grammar allows
            logits_V.copy_(plain_V)
            self.grammar.mask(logits_V)

    def append(self, token: int) -> None:
        super().append(token)
        if self.grammar is not None:
            self.grammar.accept(token)
            if self.grammar.finished:
                self.finish_reason = "stop"

    def take(self, sampled: Sampled, logits_V: Tensor) -> Piece:
        """One more token, as a piece of text. logits: the model's own, for the alternatives."""
        n, allowed_V = self.request.alternatives, None if self.grammar is None else self.grammar.allowed_V
        best, allowed_probability = list[Alternative](), 1.0
        if n or allowed_V is not None:
            p_V = logits_V.softmax(dim=-1)
            best = most_likely(p_V[None], n, self.tokenizer, allowed_V)[0]
            allowed_probability = 1.0 if allowed_V is None else float(p_V[allowed_V].sum())
        rank = ranks(logits_V[None], [sampled.token])[0] if self.request.ranks else None
        self.append(sampled.token)
        ended = self.finish_reason == "end_of_text"
        text = self.stop.push("" if ended else self.decoder.push(sampled.token))
        if self.finish_reason is not None:
            text += self.stop.push(self.decoder.finish()) + self.stop.finish()
        if self.stop.found:
            self.finish_reason = "stop"
        return Piece(
            text,
            sampled.token,
            self.tokenizer.token_text(sampled.token),
            sampled.probability,
            sampled.sampling_probability,
            best,
            self.sample,
            self.finish_reason,
            allowed_probability,
            sampled.u,
            rank,
        )
