"""Generate: prompt in, text out, one token after the other, each with the distribution it was sampled from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from glassformer.errors import UsageError
from glassformer.generation.engine import Engine
from glassformer.generation.grammar import Grammar, grammar_of
from glassformer.generation.lockstep import SlidingContext, lockstep
from glassformer.generation.requests import ENDLESS, Piece, Request
from glassformer.generation.rows import TextRow
from glassformer.generation.settings import Sampling, new_tokens_of, sampling_of
from glassformer.models import Decoder, settings_of
from glassformer.processors.tokenizers import Tokenizer


@dataclass
class Completion:
    """One finished sample: its text (the prompt is not in it), its pieces, and why it ended:
    `length` (max_new_tokens), `stop` (a stop string, or a grammar that allows nothing more) or `end_of_text`."""

    text: str
    finish_reason: str
    pieces: list[Piece] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {"text": self.text, "finish_reason": self.finish_reason, "pieces": [p.to_dict() for p in self.pieces]}


def generate(
    model: Decoder, tokenizer: Tokenizer, prompt: str = "", *, samples: int = 1, **settings: Any
) -> list[Completion]:
    """`samples` completions of one prompt, computed together as one batch.

    Takes the settings of `stream`. With a seed, sample i is what `seed + i` gives alone (up to rounding: a batch of
    another size may be multiplied in another order).
    """
    if settings.get("endless"):
        raise UsageError("generate returns a whole text, and an endless one has no end; use stream")
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
    json_schema: Mapping[str, Any] | str | None = None,
    grammar: str | Grammar | None = None,
    sampling: Sampling | None = None,
    **draw: Any,
) -> Iterator[Piece]:
    """Yield one `Piece` a token, as soon as it is sampled.

    Args:
        prompt: the text to continue. Empty: from the end-of-text token, or a newline where there is none, as in the
            lecture (token 0 where there is no newline either). Text never becomes a special token.
        max_new_tokens: the most tokens to write; None: the model's own, else 200.
        endless: continue until the reader stops, in constant memory. The end of a text becomes a blank line.
        samples: how many completions; `piece.sample` is the number of a piece's completion.
        stop, alternatives, window: as of `Request`.
        json_schema: the text is JSON that this schema describes (an object, or its text).
        grammar: the text follows this grammar in Lark's form. Both need the extra `grammar`.
        use_cache: False reads the whole context for every token: slow, and the same tokens.
        sampling, or its fields: temperature, top_k, top_p, min_p, repetition_penalty, seed. A field that is not given
            is that of the model's folder (`model.generation_settings`), else the default of `Sampling`.

    Raises:
        UsageError: a setting is out of range; a schema or a grammar is refused.

    The model is read in eval mode and left in its own mode; torch's global generator is not used.
    """
    if endless and max_new_tokens is not None:
        raise UsageError(f"max_new_tokens={max_new_tokens} and endless both set the length of a text; give one of them")
    if sampling is not None and draw:
        raise UsageError(f"{', '.join(draw)} and sampling= set the same thing; give one of them")
    grammar = grammar_of(tokenizer, json_schema, grammar)
    if endless and grammar is not None:
        raise UsageError("an endless text never completes what a grammar describes; leave out one of them")
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
        grammar=grammar,
    )
    pieces = _pieces(model, tokenizer, request, use_cache)
    return _with_blank_lines(pieces, tokenizer) if endless else pieces


def _pieces(model: Any, tokenizer: Tokenizer, request: Request, use_cache: bool) -> Iterator[Piece]:
    if not request.max_new_tokens:
        return
    if use_cache and isinstance(model, Decoder):
        engine = Engine(model, tokenizer, max_rows=request.samples)
        yield from (event.piece for event in engine.run(request) if event.piece is not None)
        return
    request.check_tokens(tokenizer, model.config.vocab_size)
    rows = [TextRow(0, request, i, tokenizer, model) for i in range(request.samples)]
    context = SlidingContext(model, use_cache=use_cache)
    for row, sampled, logits_V in lockstep(context, rows, tokenizer.vocab_size, tokenizer.missing_ids):
        yield row.take(sampled, logits_V)


def _with_blank_lines(pieces: Iterator[Piece], tokenizer: Tokenizer) -> Iterator[Piece]:
    """A blank line in place of each token that ends a text."""
    ends = {i: tokenizer.decode([i]) for i in tokenizer.ends}
    for piece in pieces:
        end = ends.get(piece.token)
        yield piece if end is None else replace(piece, text=piece.text.removesuffix(end) + "\n\n")


def prompt_ids(tokenizer: Tokenizer, prompt: str, bos: int | None = None) -> list[int]:
    """The ids that a model continues: the text after the token that every text begins with, if there is one; for an
    empty text `bos`, the model's own first token, else the end-of-text token, or a newline (see `stream`)."""
    start = [] if tokenizer.starts_with is None else [tokenizer.starts_with]
    if ids := start + tokenizer.encode(prompt):
        return ids
    if bos is not None and bos < tokenizer.vocab_size:
        return [bos]
    if tokenizer.end_of_text is not None:
        return [tokenizer.end_of_text]
    return [0] if tokenizer.unknown_characters("\n") else tokenizer.encode("\n") or [0]
