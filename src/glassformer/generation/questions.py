"""Questions to a model that has read a text: which class it is of, what stands behind a mask, what fits into a gap.

The film was <mask> .     an encoder says how likely each token is at the place of the mask
The film was <mask> .     a span model (T5) writes what stands in each gap, in one token or in ten
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.answers import answer_ids, ended, plain_text
from glassformer.generation.beam import LONGER_THAN_SOURCE
from glassformer.generation.requests import check_ids
from glassformer.generation.sampling import token_logits
from glassformer.generation.text import Alternative
from glassformer.models import Encoder
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.special_tokens import MASK

GAP = "<mask>"
"""What a person types where something is missing, whatever the tokenizer calls it."""
MASKS = (MASK, "[MASK]")
FIRST, LAST = "[CLS]", "[SEP]"
"""What BERT's tokenizers put around every text. Our own encoders read the text alone."""


@dataclass(frozen=True)
class Filling:
    """One way to fill the gaps of a text. spans: what stands in each, in order. text: the whole. log_probability: of
    all that the model wrote, in nats; of masks, which are filled each by itself, the sum."""

    text: str
    spans: tuple[str, ...]
    log_probability: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def commands_for(model: Any, tokenizer: Tokenizer) -> list[str]:
    """Which commands of `glassformer` ask this model something, the fitting one first."""
    if model.reads != "text":
        return []
    if "target" in model.answers:
        return ["fill", "translate"] if sentinels_of(tokenizer) else ["translate"]
    if not isinstance(model, Encoder):
        return ["generate"] if "next_token" in model.answers else []  # vectors of words answer nothing
    asked = {"classify": model.classifier is not None, "fill": mask_of(model, tokenizer) is not None}
    return [command for command, fits in asked.items() if fits]


def classify(model: Any, tokenizer: Tokenizer, texts: Sequence[str], *, batch_size: int = 64) -> Tensor:
    """Probability of each class for each text: (N, classes), in the order of the texts. What is longer than the model
    reads loses its end, as in training.

    Raises:
        UsageError: the model has no classes to choose from, or a text is empty.
    """
    _check_encoder(model, "classify texts")
    if model.classifier is None:
        raise UsageError("this encoder knows no classes of texts; train one with task.kind=sequence_class")
    rows = [around(tokenizer, text_ids(tokenizer, text, number), model) for number, text in enumerate(texts, 1)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    p_NC = torch.zeros(len(rows), model.config.n_classes)
    for start in range(0, len(rows), batch_size):
        chosen = order[start : start + batch_size]
        vectors_BTC, lengths_B = read_rows(model, [rows[i] for i in chosen])
        with torch.inference_mode():
            p_NC[chosen] = model.sequence_logits(vectors_BTC, lengths_B).float().softmax(dim=-1).cpu()
    return p_NC


def fill_masks(
    model: Any, tokenizer: Tokenizer, text: str, *, alternatives: int = 5
) -> tuple[list[list[Alternative]], Filling]:
    """An encoder's likeliest tokens at each `<mask>` of a text, best first; and the text with the best in each place.

    Raises:
        UsageError: the model fills in no masks, or the text has none, or is too long.
    """
    _check_encoder(model, "fill in masks")
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
    best = logp_MV.topk(min(alternatives, logp_MV.shape[1]))
    found = [
        [Alternative(i, tokenizer.token_text(i), p) for i, p in zip(row, chances, strict=True)]
        for row, chances in zip(best.indices.tolist(), best.values.exp().tolist(), strict=True)
    ]
    taken = iter(best.indices[:, 0].tolist())
    filled = [next(taken) if token == mask else token for token in ids]
    spans = tuple(tokenizer.decode([row[0].token]).strip() for row in found)
    return found, Filling(tokenizer.decode(filled), spans, float(best.values[:, 0].sum()))


def fill_spans(model: Any, tokenizer: Tokenizer, text: str, *, n_best: int = 1, **settings: Any) -> list[Filling]:
    """What a span model writes into the gaps of a text: `n_best` ways, best first, or so many draws.

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
        told = tuple(plain_text(tokenizer, spans.get(token, [])).strip() for token in ids if token in sentinels)
        found.append(Filling(plain_text(tokenizer, filled), told, answer.log_probability))
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
    """The mask's id, if the model can say what it hides."""
    if model.config.token_head != "vocabulary":
        return None
    return next((tokenizer.special_tokens[name] for name in MASKS if name in tokenizer.special_tokens), None)


def with_masks(tokenizer: Tokenizer, text: str, mask: int | None) -> list[int]:
    """Ids of a text in which every `<mask>` is one, where there is a mask; else of the text as it stands."""
    return tokenizer.encode(text) if mask is None or GAP not in text else _with_gaps(tokenizer, text, None, mask)


def _with_gaps(tokenizer: Tokenizer, text: str, sentinels: Sequence[int] | None, mask: int = 0) -> list[int]:
    """Ids of a text whose gaps are the mask, or one sentinel after the other.

    The space before a gap belongs to what is missing: tokens bring it along.
    """
    parts = text.split(GAP)
    if len(parts) == 1:
        raise UsageError(f"{text[:40]!r} has no gap to fill; put {GAP} where something is missing")
    if sentinels is not None and len(parts) - 1 > len(sentinels):
        raise UsageError(f"the text has {len(parts) - 1} gaps and the model knows {len(sentinels)}; ask for fewer")
    parts = [*(part.rstrip() for part in parts[:-1]), parts[-1]]
    ids = tokenizer.encode(parts[0]) if parts[0] else []
    for number, part in enumerate(parts[1:]):
        ids.append(mask if sentinels is None else sentinels[number])
        ids += tokenizer.encode(part) if part else []
    return ids


def text_ids(tokenizer: Tokenizer, text: str, number: int) -> list[int]:
    if not text.strip():
        raise UsageError(f"text {number} is empty; give it one word or leave it out")
    return tokenizer.encode(text)


def around(tokenizer: Tokenizer, ids: list[int], model: Any, cut: bool = True) -> list[int]:
    """The text with what its tokenizer puts around it, if anything; cut to what the model reads, or refused. So is a
    token that the model has no vector for."""
    check_ids(ids, tokenizer, model.config.vocab_size)
    known = tokenizer.special_tokens
    bare = not (FIRST in known and LAST in known)
    told = tokenizer.settings.get("model_max_length")  # sentence encoders read less than they have positions
    reads = min(model.config.block_size, told if isinstance(told, int) and told > 2 else model.config.block_size)
    room = reads - (0 if bare else 2)
    if not cut and len(ids) > room:
        raise UsageError(f"the text has {plural(len(ids), 'token')} and the model reads {room} at most; shorten it")
    return ids[:room] if bare else [known[FIRST], *ids[:room], known[LAST]]


def read_rows(model: Any, rows: list[list[int]]) -> tuple[Tensor, Tensor]:
    """Vectors (B, T, C) and lengths (B,) of some texts, read in eval mode, which is put back."""
    lengths_B = torch.tensor([len(ids) for ids in rows])
    ids_BT = torch.zeros(len(rows), int(lengths_B.max()), dtype=torch.int64)
    for row, ids in enumerate(rows):
        ids_BT[row, : len(ids)] = torch.tensor(ids)
    device, was_training = next(model.parameters()).device, model.training
    model.eval()
    try:
        with torch.inference_mode():
            return model(ids_BT.to(device), lengths_B.to(device)), lengths_B.to(device)
    finally:
        model.train(was_training)


def _check_encoder(model: Any, what: str) -> None:
    if not isinstance(model, Encoder) or model.reads != "text":
        raise UsageError(f"this {type(model).__name__} does not {what}: an encoder of text is needed")
