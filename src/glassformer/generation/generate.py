"""Generate: prompt in, text out, one token after the other, each with the distribution it was drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import torch

from glassformer.errors import UsageError
from glassformer.generation.defaults import new_tokens_of, sampling_of
from glassformer.generation.engine import Engine
from glassformer.generation.next_tokens import check_numbers, most_likely
from glassformer.generation.requests import ENDLESS, Request, Row
from glassformer.generation.sampling import Sampling, choose, filtered_probabilities, token_logits
from glassformer.generation.text import Piece
from glassformer.generation.windows import Context
from glassformer.models import Decoder, settings_of
from glassformer.processors.tokenizers import Tokenizer


@dataclass
class Completion:
    """One finished sample: its text (the prompt is not in it), its pieces, and why it ended:
    `length` (max_new_tokens), `stop` (a stop string) or `end_of_text`."""

    text: str
    finish_reason: str
    pieces: list[Piece] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "finish_reason": self.finish_reason, "pieces": [p.to_dict() for p in self.pieces]}


def generate(
    model: Decoder, tokenizer: Tokenizer, prompt: str = "", *, samples: int = 1, **settings: Any
) -> list[Completion]:
    """All of it at once: `samples` completions of one prompt, computed together as one batch.

    Takes the settings of `stream`. With a seed, sample i is what `seed + i` gives alone (up to rounding: a batch of
    another size may be multiplied in another order).
    """
    if settings.get("endless"):
        raise UsageError("generate gives a whole text, and an endless one has no end; take stream")
    done = [Completion(text="", finish_reason="length") for _ in range(samples)]
    for piece in stream(model, tokenizer, prompt, samples=samples, **settings):
        completion = done[piece.sample]
        completion.text += piece.text
        completion.pieces.append(piece)
        completion.finish_reason = piece.finish_reason or completion.finish_reason
    return done


def stream(
    model: Decoder,
    tokenizer: Tokenizer,
    prompt: str = "",
    *,
    max_new_tokens: int | None = None,
    endless: bool = False,
    samples: int = 1,
    stop: Sequence[str] = (),
    alternatives: int = 0,
    window: str = "half",
    use_cache: bool = True,
    sampling: Sampling | None = None,
    **draw: Any,
) -> Iterator[Piece]:
    """Yield one `Piece` a token, as soon as it is drawn.

    Args:
        prompt: what to go on from. Empty: from the end-of-text token, or a newline where there is none, as in the
            lecture (token 0 where there is no newline either). Text never becomes a special token.
        max_new_tokens: how many tokens at most; None: what the model's folder says, else 200.
        endless: go on until the reader stops, in constant memory. What ends a text begins the next one: a blank line.
        samples: how many completions; their pieces come in turn, told apart by `piece.sample`.
        stop: strings that end a sample; they are not part of its text.
        alternatives: how many of the most likely tokens each piece carries.
        window: what to do beyond block_size: `half` or `exact` (see `windows.py`). use_cache: False for the twin.
        sampling, or its fields: temperature, top_k, top_p, min_p, repetition_penalty, seed. A field that is not given
            is what the model's folder says (`model.generation_settings`), else the default of `Sampling`.

    Raises:
        UsageError: a setting is out of range.

    The model is read in eval mode whatever mode it is in, and is left in its own; torch's global generator is not used.
    """
    if endless and max_new_tokens is not None:
        raise UsageError(f"max_new_tokens={max_new_tokens} and endless say how long a text gets; give one of them")
    if sampling is not None and draw:
        raise UsageError(f"{', '.join(draw)} and sampling= say the same thing; give one of them")
    ids = prompt_ids(tokenizer, prompt, settings_of(model).bos_token_id)
    request = Request(
        ids=tuple(ids),
        max_new_tokens=ENDLESS if endless else new_tokens_of(model, len(ids), max_new_tokens),
        end_tokens=frozenset() if endless else None,
        samples=samples,
        sampling=sampling or sampling_of(model, draw),
        stop=tuple(stop),
        alternatives=alternatives,
        window=window,
    )
    by_engine = use_cache and isinstance(model, Decoder)
    pieces = _by_engine(model, tokenizer, request) if by_engine else _by_context(model, tokenizer, request, use_cache)
    return _with_blank_lines(pieces, tokenizer) if endless else pieces


def _with_blank_lines(pieces: Iterator[Piece], tokenizer: Tokenizer) -> Iterator[Piece]:
    """A blank line in place of each token that ends a text."""
    ends = {i: tokenizer.decode([i]) for i in tokenizer.ends}
    for piece in pieces:
        end = ends.get(piece.token)
        yield piece if end is None else replace(piece, text=piece.text.removesuffix(end) + "\n\n")


def _by_engine(model: Decoder, tokenizer: Tokenizer, request: Request) -> Iterator[Piece]:
    if not request.max_new_tokens:
        return
    engine = Engine(model, tokenizer, max_rows=request.samples)
    yield from (event.piece for event in engine.run(request) if event.piece is not None)


@torch.inference_mode()
def _by_context(model: Any, tokenizer: Tokenizer, request: Request, use_cache: bool) -> Iterator[Piece]:
    """The readable twin of the engine, for one prompt; and the way of models of other kinds."""
    request.check_tokens(tokenizer, model.config.vocab_size)
    sampling = request.sampling
    device, endless = next(model.parameters()).device, request.max_new_tokens == ENDLESS
    context = Context(
        model, torch.tensor([request.ids], device=device), window=request.window, use_cache=use_cache, forget=endless
    )
    rows = [Row(0, request, i, tokenizer, model) for i in range(request.samples)]  # that still go on
    logits_BV = None
    for _ in count() if endless else range(request.max_new_tokens):
        if logits_BV is None:  # the prompt is read once, whatever the number of samples
            logits_BV = context.next_logits().expand(request.samples, -1)
            context.fork(request.samples)
        else:
            logits_BV = context.next_logits()
        logits_BV = token_logits(logits_BV, tokenizer.vocab_size, tokenizer.missing_ids).cpu()
        adjusted_BV = logits_BV.clone()
        for row, logits_V in zip(rows, adjusted_BV, strict=True):
            row.adjust(logits_V)
        chances_BV = filtered_probabilities(
            adjusted_BV, sampling, context.ids_BT.cpu() if sampling.repetition_penalty != 1 else None
        )
        ids_B = choose(chances_BV, [row.generator for row in rows])
        own_BV = logits_BV.softmax(dim=-1)
        check_numbers(own_BV[:, 0])
        best = most_likely(own_BV, request.alternatives, tokenizer)
        going_on = []
        for b, (row, token) in enumerate(zip(rows, ids_B.tolist(), strict=True)):
            piece = row.take(token, float(own_BV[b, token]), float(chances_BV[b, token]), best[b])
            if piece.finish_reason is None:
                going_on.append(b)
            yield piece
        if not going_on:
            return
        context.append(ids_B)
        if len(going_on) < len(rows):
            rows = [rows[b] for b in going_on]
            context.keep(going_on)


def prompt_ids(tokenizer: Tokenizer, prompt: str, bos: int | None = None) -> list[int]:
    """What a model is given to go on from: the text behind the token that every text begins with, if there is one; of
    an empty text `bos`, the model's own first token, else the end-of-text token, or a newline (see `stream`)."""
    start = [] if tokenizer.starts_with is None else [tokenizer.starts_with]
    if ids := start + tokenizer.encode(prompt):
        return ids
    if bos is not None and bos < tokenizer.vocab_size:
        return [bos]
    if tokenizer.end_of_text is not None:
        return [tokenizer.end_of_text]
    return [0] if tokenizer.unknown_characters("\n") else tokenizer.encode("\n") or [0]
