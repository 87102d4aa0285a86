"""The residual stream: what the lens, attribution and residual norms have in common.

    embedding ──► + ──► + ──► ... ──► + ──► final norm ──► head ──► logits
                  ▲     ▲             ▲
            attention  feed-forward  every layer reads the stream and adds to it

Of an encoder-decoder it is the decoder's: that of what is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from glassformer.errors import UsageError, did_you_mean, plural
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.fill_mask import mask_of
from glassformer.inspection.reading import Reading, check_place, stack_of
from glassformer.inspection.trace import trace
from glassformer.models import Encoder
from glassformer.processors.tokenizers import Tokenizer


@dataclass(frozen=True)
class Answers:
    """What the head of a model chooses from: tokens, or classes by their names."""

    tokenizer: Any
    classes: tuple[str, ...] = ()

    def text(self, number: int) -> str:
        """What to show for the logit of this number."""
        return self.classes[number] if self.classes else self.tokenizer.token_text(number)  # type: ignore[no-any-return]

    def number(self, given: str | int, option: str) -> int:
        """The number of the logit of a token, by its text or id, or of a class, by its name.

        Raises:
            UsageError: there is none such.
        """
        if not self.classes:
            return token_of(self.tokenizer, given, option)
        if str(given) not in self.classes:
            raise UsageError(f"{option}={given} is no class of this model; {did_you_mean(str(given), self.classes)}")
        return self.classes.index(str(given))

    def place_of(self, seen: Reading, position: int | None) -> int | None:
        """A position as a number from 0; None: the whole, of which a class is said."""
        return None if self.classes and position is None else place_of(seen, position)


def answers_of(model: Any, tokenizer: Any, labels: Sequence[str] = ()) -> Answers:
    """What the model's head chooses from. labels: the names of its classes; without them, their numbers.

    Raises:
        UsageError: the model has no head over tokens or over classes.
    """
    config = stack_of(model)[0].config
    if getattr(config, "has_classifier", False) and config.token_head == "none" and config.n_classes > 1:
        return Answers(None, tuple(labels) or tuple(map(str, range(config.n_classes))))
    check_token_head(model)
    return Answers(tokenizer)


def check_token_head(model: Any) -> None:
    """
    Raises:
        UsageError: the model has no head over tokens, which would turn a vector into tokens.
    """
    stack, _ = stack_of(model)
    if not isinstance(stack, Encoder) and model.answers.isdisjoint({"next_token", "target"}):
        raise UsageError(
            f"this {type(model).__name__} reads {model.reads} and has no head over tokens, so its vectors cannot be "
            "read as words; decoders, encoder-decoders and encoders that fill in masks can"
        )
    if getattr(stack.config, "token_head", "vocabulary") != "vocabulary":
        raise UsageError(
            f"this Encoder reads {model.reads} and has no head over tokens (token_head={stack.config.token_head}), so "
            "its vectors cannot be read as words; decoders, encoder-decoders and encoders that fill in masks can"
        )


def read_out(stack: Any, vectors: Tensor) -> Tensor:
    """What the model's own head makes of vectors (..., C) behind the final norm: logits (..., V)."""
    return stack.token_logits(vectors) if isinstance(stack, Encoder) else stack.logits(vectors)


def place_of(seen: Reading, position: int | None) -> int:
    """A position as a number from 0; None is an encoder's first mask, and otherwise the last place.

    Raises:
        UsageError: there is none such.
    """
    if position is not None:
        return check_place("position", position, len(seen.labels))
    mask = None if seen.is_causal or seen.tokenizer is None else mask_of(seen.model, seen.tokenizer)
    return seen.ids.index(mask) if mask in seen.ids else len(seen.labels) - 1


def token_of(tokenizer: Tokenizer, token: str | int, name: str) -> int:
    """The id of a token that is given as its text or its id.

    Raises:
        UsageError: the text is not exactly one token, or there is no such id.
    """
    if isinstance(token, int):
        if not 0 <= token < tokenizer.vocab_size:
            raise UsageError(f"{name}={token} is not in the vocabulary; use 0 to {tokenizer.vocab_size - 1}")
        return token
    if token in tokenizer.special_tokens:
        return tokenizer.special_tokens[token]
    ids = tokenizer.encode(token)
    if len(ids) == 1:
        return ids[0]
    spaced = token.startswith(" ") or len(tokenizer.encode(f" {token}")) != 1
    parts = "|".join(map(tokenizer.token_text, ids[:8])) + ("|..." if len(ids) > 8 else "")
    found = f"{plural(len(ids), 'token')} ({parts})" if ids else "no token"
    better = "give one of them, or an id" if spaced else f"try {' ' + token!r}"
    raise UsageError(f"{name}={token!r} is {found} and must be one; {better}")


def place_name(seen: Reading, place: int | None) -> str:
    """Where a model's answer at this place stands in the text."""
    if place is None:
        return "of the whole"
    return f"{'after' if seen.is_causal else 'at'} {seen.labels[place]!r}"


def evenly(n: int, most: int) -> list[int]:
    """At most so many of 0 ... n - 1, the first and the last among them.

    >>> evenly(4, 9), evenly(9, 3), evenly(5, 1)
    ([0, 1, 2, 3], [0, 4, 8], [4])
    """
    if n <= most:
        return list(range(n))
    return [n - 1] if most == 1 else [round(i * (n - 1) / (most - 1)) for i in range(most)]


def layer_logits(seen: Reading, classes: bool = False) -> Iterator[tuple[Tensor, Tensor | None]]:
    """What the model would predict at every place if it stopped there: logits (T, V) in fp32 on the CPU, first
    after the embedding, then after each block. The last are those of `Reading.logits`. classes: the logits are of the
    classes, as if each place were all there is; and beside them those of the whole, (classes,)."""
    stack, prefix = stack_of(seen.model)
    names = [f"{prefix}blocks.0.residual.before", f"{prefix}blocks.*.residual.after"]
    with trace(seen.model, *names) as kept:
        seen.run()
    known = None if seen.tokenizer is None else seen.tokenizer.vocab_size
    with evaluating(seen.model):
        for x_BTC in kept.values():
            x_BTC = x_BTC if stack.final_norm is None else stack.final_norm(x_BTC)
            if classes:  # twice, for a second token that another head reads
                alone_TN = stack.sequence_logits(x_BTC[0].unsqueeze(1).expand(-1, 2, -1))
                yield alone_TN.float().cpu(), stack.sequence_logits(x_BTC)[0].float().cpu()
            else:
                yield read_out(stack, x_BTC)[0, :, :known].float().cpu(), None
