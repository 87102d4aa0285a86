"""What goes into the engine and what comes out: requests, events, pieces of text."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.grammar import Grammar
from glassformer.generation.settings import Sampling
from glassformer.processors.tokenizers import Tokenizer

ENDLESS = sys.maxsize  # as `max_new_tokens`: continue until the reader stops
MAX_BIAS = 1e4  # what is added to a logit: enough to forbid or to force, and still a number
WINDOWS = ("half", "exact")


@dataclass(frozen=True)
class Alternative:
    """A token that could have come, with the model's own probability for it (temperature 1, no filters)."""

    token: int
    text: str
    probability: float
    allowed: bool = True  # False: the request's grammar does not allow it here


@dataclass(frozen=True)
class Piece:
    """One generated token."""

    text: str  # to show now; it lags behind while a character is incomplete or a stop string may have begun
    token: int
    token_text: str  # the token in a printable form
    probability: float  # the model's own (temperature 1, no filters)
    sampling_probability: float  # after grammar, temperature and filters
    alternatives: list[Alternative] = field(default_factory=list)  # the model's most likely tokens, best first
    sample: int = 0  # which of several samples it belongs to
    finish_reason: str | None = None
    allowed_probability: float = 1.0  # of all tokens that the grammar allows here, together, by the model
    u: float | None = None  # the random number in [0, 1) that sampled it; None at temperature 0 and for a prompt
    rank: int | None = None  # by the model, 1 is the most likely; only if `Request.ranks`

    @property
    def chance(self) -> float:
        """The name of `sampling_probability` in version 0.1."""
        return self.sampling_probability

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Request:
    """Continue these tokens.

    Beyond block_size, `half` keeps the last half of the context and reads it again, once every block_size/2 tokens;
    `exact` slides by one, the lecture's crop to the last block_size tokens, which no cache can follow.

    Raises:
        UsageError: a value is out of range.
    """

    ids: tuple[int, ...]  # the prompt, at least one token
    max_new_tokens: int = 200  # 0: score the prompt only
    samples: int = 1
    sampling: Sampling = field(default_factory=Sampling)
    stop: tuple[str, ...] = ()  # strings that end a sample, and are no part of its text
    end_tokens: frozenset[int] | None = None  # tokens that end a sample; None: the tokenizer's `ends`
    alternatives: int = 0  # how many of the most likely tokens each piece lists
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added before sampling, not in `Piece.probability`
    score_prompt: bool = False  # also give the probability of every token of the prompt
    ranks: bool = False  # also give the rank of every token
    window: str = "half"  # beyond block_size: half or exact
    grammar: Grammar | None = None  # what each sample must follow; its last token may be missing if it is cut off

    def __post_init__(self) -> None:
        if self.window not in WINDOWS:
            raise UsageError(f"window={self.window!r} is unknown; use half (fast) or exact (slides by one)")
        for name, value, least in (
            ("max_new_tokens", self.max_new_tokens, 0),
            ("samples", self.samples, 1),
            ("alternatives", self.alternatives, 0),
            ("the number of the prompt's tokens", len(self.ids), 1),
        ):
            if value < least:
                raise UsageError(f"{name}={value} is too small; use {least} or more")
        for token, bias in self.logit_bias.items():
            if not abs(bias) <= MAX_BIAS:
                raise UsageError(f"logit_bias of token {token} is {bias}; use one from -{MAX_BIAS:g} to {MAX_BIAS:g}")

    def check_tokens(self, tokenizer: Tokenizer, n_rows: int) -> None:
        """Raise `UsageError` for a token that the tokenizer, or the model's table of so many rows, does not have."""
        check_ids((*self.ids, *self.logit_bias), tokenizer, n_rows)
        if self.grammar is not None and self.grammar.tokenizer != tokenizer:
            raise UsageError("the grammar was compiled for another tokenizer; make it with this model's")


class Event(NamedTuple):
    """What a step of the engine gave to a request: one of the three."""

    request: int
    piece: Piece | None = None  # a token of one of its samples
    prompt: tuple[Piece, ...] = ()  # scored tokens of its prompt
    error: Exception | None = None  # the error that ended all of its samples


def check_ids(ids: Iterable[int], tokenizer: Tokenizer, n_rows: int) -> None:
    """Raise `UsageError` for an id that is no token, or that the model's table of `n_rows` rows has no vector for.

    Tables are often longer than the vocabulary, up to a round number; such rows were never trained.
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


def ranks(logits_NV: Tensor, tokens: Sequence[int]) -> list[int]:
    """The rank of a token in each row, 1 is the most likely; of equal ones the smaller id comes first."""
    tokens_N1 = torch.tensor(tokens, device=logits_NV.device)[:, None]
    own_N1 = logits_NV.gather(1, tokens_N1)
    before_NV = torch.arange(logits_NV.shape[1], device=logits_NV.device) < tokens_N1
    better_NV = (logits_NV > own_N1) | ((logits_NV == own_N1) & before_NV)
    return [1 + n for n in better_NV.sum(dim=1).tolist()]


def most_likely(p_NV: Tensor, n: int, tokenizer: Tokenizer, allowed_V: Tensor | None = None) -> list[list[Alternative]]:
    """The n most likely tokens of each row, best first; all that there are if n is more. allowed: by a grammar."""
    if not n:
        return [[] for _ in p_NV]
    best = p_NV.topk(min(n, p_NV.shape[1] - sum(i < p_NV.shape[1] for i in tokenizer.missing_ids)))
    return [
        [
            Alternative(i, tokenizer.token_text(i), p, allowed_V is None or bool(allowed_V[i]))
            for i, p in zip(ids, probabilities, strict=True)
        ]
        for ids, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
