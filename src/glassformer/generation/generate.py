"""Generate: prompt in, text out, one token after the other, each with the distribution it was drawn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from glassformer.errors import UsageError
from glassformer.generation.sampling import Sampling, choose, filtered_probabilities
from glassformer.generation.text import Alternative, Piece, StopStrings
from glassformer.generation.windows import Context, check_window
from glassformer.models import Decoder
from glassformer.tokenizers import Tokenizer


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
    max_new_tokens: int = 200,
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
        max_new_tokens: how many tokens at most.
        samples: how many completions; their pieces come in turn, told apart by `piece.sample`.
        stop: strings that end a sample; they are not part of its text.
        alternatives: how many of the most likely tokens each piece carries.
        window: what to do beyond block_size: `half` or `exact` (see `windows.py`). use_cache: False for the twin.
        sampling, or its fields: temperature, top_k, top_p, min_p, repetition_penalty, seed.

    Raises:
        UsageError: a setting is out of range.

    The model is read in eval mode whatever mode it is in, and is left in its own; torch's global generator is not used.
    """
    if sampling is not None and draw:
        raise UsageError(f"{', '.join(draw)} and sampling= say the same thing; give one of them")
    sampling = sampling or Sampling(**draw)
    check_window(window)
    for name, value, least in (
        ("max_new_tokens", max_new_tokens, 0),
        ("samples", samples, 1),
        ("alternatives", alternatives, 0),
    ):
        if value < least:
            raise UsageError(f"{name}={value} is too small; use {least} or more")
    return _stream(
        model, tokenizer, prompt, max_new_tokens, samples, tuple(stop), alternatives, window, use_cache, sampling
    )


@torch.inference_mode()
def _stream(
    model: Decoder,
    tokenizer: Tokenizer,
    prompt: str,
    max_new_tokens: int,
    samples: int,
    stop: tuple[str, ...],
    alternatives: int,
    window: str,
    use_cache: bool,
    sampling: Sampling,
) -> Iterator[Piece]:
    device = next(model.parameters()).device
    context = Context(
        model, torch.tensor([_prompt_ids(tokenizer, prompt)], device=device), window=window, use_cache=use_cache
    )
    rows = [_Row(tokenizer, stop, sampling.seed + i, i) for i in range(samples)]  # those still going on
    logits_BV = None
    for step in range(max_new_tokens):
        if logits_BV is None:  # the prompt is read once, whatever the number of samples
            logits_BV = context.next_logits().expand(samples, -1)
            context.fork(samples)
        else:
            logits_BV = context.next_logits()
        # some models have more logits than their tokenizer has tokens (a padded table): those cannot be said
        logits_BV = logits_BV[:, : tokenizer.vocab_size].float().cpu()
        chances_BV = filtered_probabilities(
            logits_BV, sampling, context.ids_BT.cpu() if sampling.repetition_penalty != 1 else None
        )
        ids_B = choose(chances_BV, [row.generator for row in rows])
        own_BV = logits_BV.softmax(dim=-1)
        best = own_BV.topk(min(alternatives, own_BV.shape[-1])) if alternatives else None
        going_on = []
        for b, (row, token) in enumerate(zip(rows, ids_B.tolist(), strict=True)):
            others = (
                []
                if best is None
                else [
                    Alternative(i, tokenizer.token_text(i), p)
                    for i, p in zip(best.indices[b].tolist(), best.values[b].tolist(), strict=True)
                ]
            )
            piece = row.take(
                token, float(own_BV[b, token]), float(chances_BV[b, token]), others, step + 1 == max_new_tokens
            )
            if piece.finish_reason is None:
                going_on.append(b)
            yield piece
        if not going_on:
            return
        context.append(ids_B)
        if len(going_on) < len(rows):
            rows = [rows[b] for b in going_on]
            context.keep(going_on)


class _Row:
    """One sample under way: its generator, its half-decoded characters, its stop strings."""

    def __init__(self, tokenizer: Tokenizer, stop: tuple[str, ...], seed: int, sample: int):
        self.tokenizer, self.sample = tokenizer, sample
        self.generator = torch.Generator().manual_seed(seed)
        self.decoder = tokenizer.stream_decoder()
        self.stop = StopStrings(stop)

    def take(self, token: int, probability: float, chance: float, others: list[Alternative], last: bool) -> Piece:
        ended = token == self.tokenizer.end_of_text
        text = self.stop.push("" if ended else self.decoder.push(token))
        reason = "stop" if self.stop.found else "end_of_text" if ended else "length" if last else None
        if reason in ("end_of_text", "length"):
            text += self.stop.push(self.decoder.finish()) + self.stop.finish()
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


def _prompt_ids(tokenizer: Tokenizer, prompt: str) -> list[int]:
    if ids := tokenizer.encode(prompt):
        return ids
    if tokenizer.end_of_text is not None:
        return [tokenizer.end_of_text]
    return [0] if tokenizer.unknown_characters("\n") else tokenizer.encode("\n") or [0]
