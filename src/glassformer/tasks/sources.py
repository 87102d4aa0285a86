"""The data of tasks on examples: examples by split, what encodes them, and the checks of their targets."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from glassformer.data.encoding import label_names
from glassformer.data.examples import Example
from glassformer.errors import DataError, did_you_mean, plural
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.special_tokens import END, MASK, PAD, START


@dataclass(kw_only=True)
class SplitSource:
    """Examples of any kind by split, and what was too long in them (`notices`)."""

    name: str
    examples: Mapping[str, Sequence[Any]]
    labels: tuple[str, ...] = ()
    notices: list[str] = field(default_factory=list)
    encoded: dict[tuple[str, int], list[Any]] = field(default_factory=dict)

    @property
    def n_train(self) -> int:
        return len(self.examples.get("train", ()))

    def digest(self, parts: Callable[[Any], Iterable[str]], end: str = "", begin: str = "") -> str:
        """Changes when the parts of a training or validation example do."""
        digest = hashlib.sha256(begin.encode())
        for split in ("train", "validation"):
            for example in self.examples.get(split, ()):
                digest.update("\0".join((split, *parts(example), "")).encode("utf-8", "surrogatepass"))
        digest.update(end.encode())
        return digest.hexdigest()[:16]

    def notice(self, count: int, noun: str, split: str, what: str) -> None:
        """Note how many examples of a split were changed, for `Task.warnings`."""
        if count:
            self.notices.append(f"{plural(count, noun)} of {len(self.examples[split]):,} ({split}) {what}")


@dataclass(kw_only=True)
class ExampleSource(SplitSource):
    """Texts, perhaps with targets, and their tokenizers.

    special: the ids of special tokens by their names in the configuration of an existing model; without one, they are
    looked up in the tokenizer.
    """

    tokenizer: Tokenizer
    source_tokenizer: Tokenizer | None = None
    special: dict[str, int] = field(default_factory=dict)

    @property
    def reader(self) -> Tokenizer:
        """The tokenizer of sources."""
        return self.source_tokenizer or self.tokenizer

    @cached_property
    def key(self) -> str:
        """Changes when an example or a vocabulary does."""
        hashes = (str(tokenizer and tokenizer.hash) for tokenizer in (self.tokenizer, self.source_tokenizer))
        return self.digest(tuple, end="".join(hashes))

    def fields(self) -> dict[str, Any]:
        """Sizes and special tokens by their names in a configuration; those that the tokenizer lacks are left out."""
        t, reader = self.tokenizer, self.source_tokenizer or self.tokenizer
        names = {"start_token": START, "end_token": END, "pad_token": PAD, "mask_token": MASK}
        fields: dict[str, Any] = {"vocab_size": t.vocab_size}
        if isinstance(reader, Tokenizer):
            fields["source_vocab_size"] = reader.vocab_size
        fields |= {name: t.special_tokens[text] for name, text in names.items() if text in t.special_tokens}
        if self.source_tokenizer is not None:
            fields["pad_token"] = 0  # never read, but it must be in both vocabularies
        fields |= self.special
        if self.labels:
            fields["n_classes"] = len(self.labels)
        return fields

    def encode(self, split: str) -> list[np.ndarray]:
        """The ids of the sources of a split.

        Raises:
            DataError: a source is empty in this vocabulary.
        """
        return encode_texts([example.source for example in self.examples[split]], self.reader)

    def pieces(self, split: str, T: int, shortest: int = 8) -> list[np.ndarray]:
        """The same in pieces of at most T tokens and at least `shortest`: a gap needs something around it.

        Raises:
            DataError: no text is long enough.
        """
        pieces = [ids[start : start + T] for ids in self.encode(split) for start in range(0, len(ids), T)]
        pieces = [ids for ids in pieces if len(ids) >= shortest]
        if not pieces:
            raise DataError(f"no text has {shortest} tokens, which a gap needs around it; give longer texts")
        return pieces

    def cut(self, rows: list[np.ndarray], split: str, T: int, noun: str = "text") -> list[np.ndarray]:
        """Rows of at most T tokens; notes how many lose their end."""
        self.notice(sum(len(ids) > T for ids in rows), noun, split, f"cut to {T} tokens")
        return [ids[:T] for ids in rows]


def encode_texts(texts: Sequence[str], tokenizer: Tokenizer) -> list[np.ndarray]:
    """Texts as ids.

    Raises:
        DataError: one is empty in this vocabulary.
    """
    rows = [*tokenizer.encode_documents(texts)]
    if (place := next((i for i, ids in enumerate(rows) if not len(ids)), None)) is not None:
        raise DataError(f"example {place}, {texts[place][:40]!r}, is empty in this vocabulary; leave it out")
    return rows


def check_targets(examples: Iterable[Example], what: str) -> None:
    """Raise a `DataError` for an example without a target."""
    bare = next((example.source for example in examples if not example.target), None)
    if bare is not None:
        raise DataError(f"{bare[:40]!r} has no {what}; give each source one")


def numbers_of(labels: Sequence[str], known: Sequence[str]) -> list[int]:
    """The places of labels among those that are learned.

    Raises:
        DataError: one is not among them.
    """
    number = {label: i for i, label in enumerate(known)}
    if unknown := next((label for label in labels if label not in number), None):
        raise DataError(f"the label {unknown!r} is not one that was learned; {did_you_mean(unknown, known)}")
    return [number[label] for label in labels]


def classes_of(targets: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes: those `known`, else the different targets, sorted.

    Raises:
        DataError: fewer than two.
    """
    return known or tuple(label_names(Example("", target) for target in targets))


def check_classes(labels: Iterable[int], n_classes: int) -> None:
    """Raise a `DataError` for a label that is no class."""
    for label in labels:
        if not 0 <= label < n_classes:
            raise DataError(
                f"label {label} is not one of the {n_classes} classes 0 ... {n_classes - 1}; check n_classes"
            )
