"""Labels of examples, and tokenizers that are learned from examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from glassformer.data.examples import Example
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.processors.tokenizers import Tokenizer, build_tokenizer


def label_names(examples: Iterable[Example]) -> list[str]:
    """The different labels, sorted.

    Raises:
        DataError: fewer than two, so that there is nothing to distinguish.
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
