"""Encoder-decoders: source sentences in, target sentences out, as text or as ids; and their cross-attention.

text ──► ids, end token ──► sorted by length, in batches ──► beam search or sampling ──► ids ──► text
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.generation.beam import Hypothesis, beam_search
from glassformer.generation.encoders import padded, text_ids
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.requests import check_ids
from glassformer.generation.seq2seq_sampling import sample_answers
from glassformer.generation.settings import Sampling, sampling_of
from glassformer.models import GenerationSettings, settings_of
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.special_tokens import END
from glassformer.taps import listening, named_taps


@dataclass(frozen=True)
class Answer:
    """A model's answer to one source."""

    tokens: tuple[int, ...]  # without the end token
    log_probability: float  # of all of them and the end, in nats
    score: float  # what it was ranked by
    text: str = ""  # without special tokens; "" from `answer_ids`
    alternatives: tuple[Answer, ...] = ()  # the next best, or the other samples

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def answer(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    source_tokenizer: Tokenizer | None = None,
    cut: bool = False,
    **settings: Any,
) -> list[Answer]:
    """The answer of a sequence-to-sequence model to each text, in order.

    Args:
        model: a `SequenceToSequence` one.
        tokenizer: of the targets. source_tokenizer: of the sources, where that is another one.
        cut: a text longer than the model reads loses its end; otherwise it is an error.
        settings: as of `answer_ids`.

    Raises:
        UsageError: the model is of another kind, a text is empty or too long, or a setting is out of range.
    """
    reader = source_tokenizer or tokenizer
    settings = {"n_tokens": tokenizer.vocab_size, "missing": tokenizer.missing_ids, **settings}
    longest = _longest(_config_of(model)) if cut else None
    sources = [ended(reader, text_ids(reader, text, number), longest) for number, text in enumerate(texts, 1)]
    for ids in sources:
        check_ids(ids, reader, source_rows(_config_of(model)))
    found = answer_ids(model, sources, **settings)
    return [with_text(each, tokenizer) for each in found]


def answer_ids(
    model: Any,
    sources: Sequence[Sequence[int]],
    *,
    beam: int | None = None,
    length_penalty: float | None = None,
    n_best: int = 1,
    max_new_tokens: int | None = None,
    batch_size: int = 64,
    sampling: Sampling | None = None,
    n_tokens: int | None = None,
    missing: Sequence[int] = (),
) -> list[Answer]:
    """The answer to each source of ids, in order. An end token that the model is used to is part of the source.

    Args:
        beam, length_penalty, n_best, max_new_tokens, n_tokens, missing: as of `beam_search`; by default as the model's
            folder sets (`num_beams`, `length_penalty` as a power, `max_new_tokens`, `max_length`).
        batch_size: how many sources, of like length, are read together.
        sampling: sample `n_best` answers in place of searching the best (see `sample_answers`); also done where the
            folder sets `do_sample` and neither sampling nor beam is given.

    Raises:
        UsageError: the model is of another kind, a source is empty or too long, or a setting is out of range.
    """
    config = _config_of(model)
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} is out of range; use 1 or more")
    longest = _longest(config)
    for number, ids in enumerate(sources, 1):
        if not len(ids):
            raise UsageError(f"source {number} is empty; give it one token or leave it out")
        if longest is not None and len(ids) > longest:
            raise UsageError(
                f"source {number} has {len(ids)} tokens and the model reads {longest} at most; cut it into sentences"
            )
    device = next(model.parameters()).device
    settings = settings_of(model)
    if sampling is None and beam is None and settings.do_sample:
        sampling = sampling_of(model, {})
    search: Any = partial(sample_answers, samples=n_best, sampling=sampling)
    if sampling is None:
        search = partial(beam_search, n_best=n_best, **_searching(settings, beam, length_penalty))
    if max_new_tokens is None:
        most = settings.max_length
        max_new_tokens = settings.max_new_tokens or (None if most is None else max(1, most - 1))  # less the start token
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: dict[int, Answer] = {}
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        batch = [part.to(device) for part in padded([sources[i] for i in chosen])]
        best = search(model, *batch, max_new_tokens=max_new_tokens, n_tokens=n_tokens, missing=missing)
        found.update((i, answer_of(hypotheses)) for i, hypotheses in zip(chosen, best, strict=True))
    return [found[i] for i in range(len(sources))]


def source_rows(config: Any) -> int:
    """How many different tokens a sequence-to-sequence model of text can read."""
    rows = getattr(config, "source_vocab_size", None)
    return int(rows or getattr(config, "encoder", config).vocab_size)


def source_ids(tokenizer: Tokenizer, text: str, longest: int | None = None) -> list[int]:
    """The ids that an encoder-decoder reads for a text, `longest` at most."""
    return ended(tokenizer, tokenizer.encode(text), longest)


def ended(tokenizer: Tokenizer, ids: Sequence[int], longest: int | None = None) -> list[int]:
    """Ids and the end token, if the tokenizer has one, and what else it puts around such a text (BART begins it with
    `<s>`); `longest` together at most."""
    end = [tokenizer.special_tokens[END]] if END in tokenizer.special_tokens else []
    before, after = tokenizer.frame
    start = before if after == end else []
    return [*start, *(ids if longest is None else ids[: longest - len(start) - len(end)]), *end]


def plain_text(tokenizer: Tokenizer, ids: Sequence[int]) -> str:
    """The text of ids without special tokens."""
    return tokenizer.decode(tokenizer.text_ids(ids))


def cross_attention(model: Any, source: Sequence[int], target: Sequence[int]) -> Tensor:
    """The attention of each target token over the source: (layers, H, T, S), every row a distribution.

    Row t is the attention when `target[t]` is predicted: the decoder has read the start token and the tokens before. A
    recurrent model with additive attention has one layer and one head.

    Raises:
        UsageError: the model has no cross-attention, or source or target is empty.
    """
    config = _config_of(model)
    taps = [name for name in named_taps(model) if name.endswith("cross_attention.pattern")] or ["attention.pattern"]
    if taps[0] not in named_taps(model):
        raise UsageError("this model has no cross-attention to look at: its decoder reads one vector of the source")
    if not len(source) or not len(target):
        raise UsageError("attention has rows and columns only where source and target have a token each")
    device = next(model.parameters()).device
    source_BS, lengths_B = (part.to(device) for part in padded([source]))
    target_BT = torch.tensor([[config.start_token, *target[:-1]]], device=device)
    seen: dict[str, list[Tensor]] = {}
    record = lambda name, pattern: seen.setdefault(name, []).append(pattern.cpu())  # noqa: E731
    with evaluating(model), listening(model, "*attention.pattern", record):
        model(source_BS, target_BT, lengths_B)
    layers = [torch.cat([part.view(1, -1, *part.shape[-2:])[0] for part in seen[name]], dim=1) for name in taps]
    return torch.stack(layers)  # (layers, H, T, S)


def _searching(settings: GenerationSettings, beam: int | None, length_penalty: float | None) -> dict[str, Any]:
    """The arguments of a beam search: those given, else the folder's, else none."""
    found: dict[str, Any] = {"beam": beam if beam is not None else settings.num_beams, "length_penalty": length_penalty}
    if length_penalty is None and settings.length_penalty is not None:
        found |= {"length_penalty": settings.length_penalty, "penalty_kind": "power"}
    if settings.early_stopping not in (None, True):
        found["patience"] = math.inf
    return {name: value for name, value in found.items() if value is not None}


def answer_of(hypotheses: Sequence[Hypothesis]) -> Answer:
    """The first hypothesis, with the others as its alternatives, and without text."""
    first, *others = [Answer(h.tokens[:-1] if h.ended else h.tokens, h.log_probability, h.score) for h in hypotheses]
    return replace(first, alternatives=tuple(others))


def with_text(found: Answer, tokenizer: Tokenizer) -> Answer:
    """An answer with the text of its tokens."""
    others = tuple(with_text(other, tokenizer) for other in found.alternatives)
    return replace(found, text=plain_text(tokenizer, found.tokens), alternatives=others)


def _config_of(model: Any) -> Any:
    """The configuration of an encoder-decoder. Raises `UsageError` for other models."""
    if "target" not in model.answers:
        raise UsageError(
            f"a {type(model).__name__} gives no answer to a source: an encoder-decoder is needed; "
            "to write on from a prompt use generate"
        )
    return model.config


def _longest(config: Any) -> int | None:
    """How many tokens of a source the model reads; None: recurrent encoders have no limit."""
    longest: int | None = getattr(getattr(config, "encoder", None), "block_size", None)
    return longest
