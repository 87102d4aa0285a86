"""Filling gaps in a text: the masks of an encoder, the spans of an encoder-decoder.

The film was <mask> .     an encoder gives each token's probability at the place of the mask
The film was <mask> .     a span model (T5) writes what stands in each gap, in one token or in ten
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from glassformer.errors import UsageError
from glassformer.generation.beam import LONGER_THAN_SOURCE
from glassformer.generation.encoders import around, check_encoder, read_rows
from glassformer.generation.filters import token_logits
from glassformer.generation.requests import Alternative, most_likely
from glassformer.generation.seq2seq import answer_ids, ended, plain_text
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.special_tokens import MASK

GAP = "<mask>"
"""What a person types where something is missing, whatever the tokenizer calls it."""
MASKS = (MASK, "[MASK]")


@dataclass(frozen=True)
class Filling:
    """One way to fill the gaps of a text."""

    text: str  # the whole
    spans: tuple[str, ...]  # what stands in each gap, in order
    log_probability: float  # of all that the model wrote, in nats; of masks, which are filled independently, the sum

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def fill_masks(
    model: Any, tokenizer: Tokenizer, text: str, *, alternatives: int = 5
) -> tuple[list[list[Alternative]], Filling]:
    """An encoder's most likely tokens at each `<mask>` of a text, best first; and the text with the best in each place.

    Raises:
        UsageError: the model fills in no masks, or the text has none, or is too long.
    """
    check_encoder(model, "fill in masks")
    mask = mask_of(model, tokenizer)
    if mask is None:
        raise UsageError("this encoder fills in no masks; train one with task.kind=masked_tokens")
    if alternatives < 1:
        raise UsageError(f"alternatives={alternatives} is out of range; use 1 or more")
    ids = _with_gaps(tokenizer, text, None, mask)
    shown = around(tokenizer, ids, model, cut=False)
    places = [place for place, token in enumerate(shown) if token == mask]
    vectors_BTC, _ = read_rows(model, [shown])
    with torch.inference_mode():
        logits_MV = model.token_logits(vectors_BTC[0, places])
        logits_MV = token_logits(logits_MV, tokenizer.vocab_size, tokenizer.missing_ids).cpu()
    logp_MV = logits_MV.log_softmax(dim=-1)
    found = most_likely(logp_MV.exp(), alternatives, tokenizer)
    best = [row[0].token for row in found]
    taken = iter(best)
    filled = [next(taken) if token == mask else token for token in ids]
    spans = tuple(tokenizer.decode([token]).strip() for token in best)
    return found, Filling(tokenizer.decode(filled), spans, float(logp_MV.amax(dim=-1).sum()))


def fill_spans(model: Any, tokenizer: Tokenizer, text: str, *, n_best: int = 1, **settings: Any) -> list[Filling]:
    """What a span model writes into the gaps of a text: the `n_best` ways, best first, or so many samples.

    Args:
        settings: as of `answer_ids`: beam, length_penalty, sampling, max_new_tokens.

    Raises:
        UsageError: the model knows no gaps, or the text has none or too many, or is too long.
    """
    sentinels = sentinels_of(tokenizer)
    if not ("target" in model.answers and sentinels):
        raise UsageError("this model fills no gaps; train one with task.kind=spans")
    ids = _with_gaps(tokenizer, text, sentinels)
    settings.setdefault("max_new_tokens", LONGER_THAN_SOURCE)  # gaps are short, whatever stands between them
    (best,) = answer_ids(
        model,
        [ended(tokenizer, ids)],
        n_best=n_best,
        n_tokens=tokenizer.vocab_size,
        missing=tokenizer.missing_ids,
        **settings,
    )
    found = []
    for answer in (best, *best.alternatives):
        spans = split_spans(answer.tokens, sentinels)
        filled = [i for token in ids for i in (spans.get(token, []) if token in sentinels else [token])]
        texts = tuple(plain_text(tokenizer, spans.get(token, [])).strip() for token in ids if token in sentinels)
        found.append(Filling(plain_text(tokenizer, filled), texts, answer.log_probability))
    return found


def sentinels_of(tokenizer: Tokenizer) -> list[int]:
    """The ids of <extra_id_0>, <extra_id_1>, ... as far as there are any."""
    found: list[int] = []
    while (name := f"<extra_id_{len(found)}>") in tokenizer.special_tokens:
        found.append(tokenizer.special_tokens[name])
    return found


def split_spans(tokens: Sequence[int], sentinels: Sequence[int]) -> dict[int, list[int]]:
    """What a span model wrote after each sentinel; of one that it wrote twice, the last.

    >>> split_spans([9, 90, 5, 6, 91, 7], [90, 91, 92])
    {90: [5, 6], 91: [7]}
    """
    found: dict[int, list[int]] = {}
    span: list[int] = []  # what comes before the first sentinel belongs nowhere
    for token in tokens:
        if token in sentinels:
            span = found[token] = []
        else:
            span.append(token)
    return found


def mask_of(model: Any, tokenizer: Tokenizer) -> int | None:
    """The mask's id, if the model predicts masked tokens."""
    if model.config.token_head != "vocabulary":
        return None
    return next((tokenizer.special_tokens[name] for name in MASKS if name in tokenizer.special_tokens), None)


def with_masks(tokenizer: Tokenizer, text: str, mask: int | None) -> list[int]:
    """Ids of a text in which every `<mask>` is one, where there is a mask; else of the text as it stands."""
    return tokenizer.encode(text) if mask is None or GAP not in text else _with_gaps(tokenizer, text, None, mask)


def _with_gaps(tokenizer: Tokenizer, text: str, sentinels: Sequence[int] | None, mask: int = 0) -> list[int]:
    """Ids of a text whose gaps are the mask, or one sentinel after the other."""
    parts = text.split(GAP)
    if len(parts) == 1:
        raise UsageError(f"{text[:40]!r} has no gap to fill; put {GAP} where something is missing")
    if sentinels is not None and len(parts) - 1 > len(sentinels):
        raise UsageError(f"the text has {len(parts) - 1} gaps and the model knows {len(sentinels)}; ask for fewer")
    parts = [*(part.rstrip() for part in parts[:-1]), parts[-1]]  # tokens bring the space before them along
    ids = tokenizer.encode(parts[0]) if parts[0] else []
    for number, part in enumerate(parts[1:]):
        ids.append(mask if sentinels is None else sentinels[number])
        ids += tokenizer.encode(part) if part else []
    return ids
