"""Examples as text to examples as ids, and the tokenizers that are learned from them.

    Example("Press Tab.", "Appuyez sur Tab.")   ([301, 77, 9], [512, 48, 77, 9])    encode_examples
    Example("A fine film.", "positive")         ([20, 84, 96, 9], 1)                encode_labelled
    Example("A fine film.")                     [20, 84, 96, 9]                     encode_sources

No token is put before or after: where a target starts and ends is the objective's to say. Ids are arrays of uint16, or
of uint32 for a vocabulary of more than 65,536 entries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from glassformer.data.examples import Example
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.processors.tokenizers import Tokenizer, build_tokenizer


class Encoded(NamedTuple):
    """Encoded examples, and how many of their sources and targets were cut because they were longer than allowed."""

    rows: list[Any]
    cut_sources: int
    cut_targets: int


def encode_examples(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    target_tokenizer: Tokenizer | None = None,
    *,
    max_source: int,
    max_target: int,
) -> Encoded:
    """Pairs of (source ids, target ids), in order.

    Args:
        target_tokenizer: for the targets, where they are spelled otherwise; the same one unless given.
        max_source, max_target: tokens; what is longer loses its end. Leave room for a start or an end token.

    Raises:
        UsageError: a length below 1.
        DataError: a source that is nothing in this vocabulary.
    """
    sources, cut_sources = _ids([e.source for e in examples], tokenizer, max_source, "max_source")
    targets, cut_targets = _ids([e.target for e in examples], target_tokenizer or tokenizer, max_target, "max_target")
    _refuse_empty(sources, examples)
    return Encoded(list(zip(sources, targets, strict=True)), cut_sources, cut_targets)


def encode_labelled(
    examples: Sequence[Example], tokenizer: Tokenizer, labels: Sequence[str], *, max_source: int
) -> Encoded:
    """Pairs of (ids, place of the label in `labels`), in order; `labels` is `label_names` of the training examples.

    Raises:
        UsageError: max_source below 1.
        DataError: a label that is not among them, or a text that is nothing in this vocabulary.
    """
    number = {label: i for i, label in enumerate(labels)}
    if bare := next((e.source for e in examples if not e.target), None):
        raise DataError(f"{bare[:40]!r} has no label; give each text one")
    if unknown := next((e.target for e in examples if e.target not in number), None):
        raise DataError(f"the label {unknown!r} is not one that was learned; {did_you_mean(unknown, labels)}")
    sources, cut = _ids([e.source for e in examples], tokenizer, max_source, "max_source")
    _refuse_empty(sources, examples)
    return Encoded([(ids, number[e.target]) for ids, e in zip(sources, examples, strict=True)], cut, 0)


def encode_sources(
    examples: Sequence[Example], tokenizer: Tokenizer, *, max_source: int, pieces: bool = False
) -> Encoded:
    """The ids of the sources, in order.

    Args:
        pieces: give all of a long text, as several rows of at most max_source tokens, rather than its beginning.

    Raises:
        UsageError: max_source below 1.
        DataError: a text that is nothing in this vocabulary.
    """
    if not pieces:
        sources, cut = _ids([e.source for e in examples], tokenizer, max_source, "max_source")
        _refuse_empty(sources, examples)
        return Encoded(sources, cut, 0)
    _check_length(max_source, "max_source")
    whole = tokenizer.encode_documents([e.source for e in examples])
    _refuse_empty(whole, examples)
    rows = [ids[start : start + max_source] for ids in whole for start in range(0, len(ids), max_source)]
    return Encoded(rows, 0, 0)


def label_names(examples: Iterable[Example]) -> list[str]:
    """The different labels, sorted.

    Raises:
        DataError: fewer than two, so that there is nothing to tell apart.
    """
    names = sorted({example.target for example in examples})
    if len(names) < 2 or "" in names:
        found = "an example has none" if "" in names else f"all examples have {names[0]!r}" if names else "no examples"
        raise DataError(f"a classifier needs two labels at the least, and {found}; give text and label in each line")
    return names


SIDES = ("both", "source", "target")


def tokenizer_from(
    examples: Sequence[Example],
    kind: str = "bpe",
    *,
    side: str = "both",
    vocab_size: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Tokenizer:
    """A tokenizer learned from training examples: from sources and targets together (a joint vocabulary), or one side.

        tokenizer_from(train, "bpe", vocab_size=8192, specials=SENTENCE_SPECIALS)
        tokenizer_from(train, "characters", side="source"), tokenizer_from(train, "words", side="target")

    Args:
        kind: of `tokenizers.TOKENIZERS`; `options` go to its builder.

    Raises:
        UsageError: no such kind or side, or an option that makes no sense for it.
        TokenizerError: there is no text on that side.
    """
    if side not in SIDES:
        raise UsageError(f"side={side!r} is unknown; {did_you_mean(side, SIDES)}")
    return build_tokenizer(kind, _texts(examples, side), vocab_size=vocab_size, progress=progress, **options)


def _texts(examples: Iterable[Example], side: str) -> Iterator[str]:
    for source, target in examples:
        if side != "target":
            yield source
        if side != "source" and target:
            yield target


def _ids(texts: Sequence[str], tokenizer: Tokenizer, limit: int, name: str) -> tuple[list[np.ndarray], int]:
    """(ids of at most `limit` tokens each, how many texts had more)."""
    _check_length(limit, name)
    whole = tokenizer.encode_documents(texts)
    return [ids[:limit] for ids in whole], sum(len(ids) > limit for ids in whole)


def _check_length(limit: int, name: str) -> None:
    if limit < 1:
        raise UsageError(f"{name}={limit} is less than 1; try {name}=64")


def _refuse_empty(rows: Sequence[np.ndarray], examples: Sequence[Example]) -> None:
    if (place := next((i for i, ids in enumerate(rows) if not len(ids)), None)) is not None:
        raise DataError(f"example {place}, {examples[place].source[:40]!r}, is empty in this vocabulary; leave it out")
