"""Tasks on a text: a stream of tokens in a token store."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from glassformer.data import TokenStore, describe, fixed_batches, read_documents, tokenizer_for
from glassformer.data.batches import check_length
from glassformer.data.prepare import prepare
from glassformer.data.token_store import SPLITS
from glassformer.errors import DataError, UsageError, did_you_mean, plural
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.tasks.base import Batch, Opening, Task
from glassformer.tasks.held_out import EVAL_WINDOW, few_at_once, spread_windows, whole_split
from glassformer.tasks.settings import Choice, DataSettings, TokenizerSettings

SMALL_TEXT = 5_000_000  # bytes; up to here characters are good enough


@dataclass
class TextSource:
    """A prepared text. inherited: whether the tokenizer is that of the model to start from."""

    store: TokenStore
    tokenizer: Tokenizer
    data: DataSettings
    inherited: bool = False
    source_tokenizer: Tokenizer | None = None
    labels: tuple[str, ...] = ()

    @cached_property
    def key(self) -> str:
        return str(self.store.meta["key"])

    @cached_property
    def n_train(self) -> int:
        return len(self.store.split("train"))


class TextTask(Task):
    """A task that learns from a stream of tokens; see `Task`."""

    learns_specials: ClassVar[bool] = True
    data_keys: ClassVar[tuple[str, ...]] = ("validation_fraction", "text_field", "max_tokens")
    specials: ClassVar[tuple[str, ...]] = ()  # tokens that a new tokenizer gets beside those of its kind
    source: TextSource

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> TextSource:
        data = opening.data
        if opening.folder is not None:
            tokenizer = load_tokenizer(opening.folder)
        else:
            tokenizer = tokenizer_of(data, cls.default_tokenizer(opening.tokenizer, choices), choices, cls.specials)
        store = prepare(
            data.source,
            tokenizer,
            validation_fraction=data.validation_fraction,
            text_field=data.text_field,
            max_tokens=data.max_tokens,
        )
        return TextSource(store, tokenizer, data, opening.inherited)

    @classmethod
    def default_tokenizer(cls, tokenizer: TokenizerSettings, choices: list[Choice]) -> TokenizerSettings:
        """The tokenizer of this task where the recipe names none; notes it in `choices`."""
        return tokenizer

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        return (piece.text for piece in read_documents(data.source, text_field=data.text_field))

    def text_sizes(self) -> dict[str, int]:
        return {"train_tokens": self.source.n_train, "val_tokens": len(self.source.store.split("validation"))}

    def check(self, config: Any) -> None:
        store = self.source.store
        if config is not None:
            check_length(store.split("train"), self.run.sequence_length)
        if (n := len(store.split("validation"))) < 2:
            raise DataError(
                f"{store.meta['source']}: {plural(n, 'token')} held out for validation, and a prediction needs 2; "
                "give more text, or data.validation_fraction=0.1"
            )

    def view(self, split: str) -> Any:
        """The tokens of a split.

        Raises:
            UsageError: there is no such split.
        """
        if split not in SPLITS:
            raise UsageError(f"a text has no {split} split; use {' or '.join(SPLITS)}, or leave out --split")
        return self.source.store.split(split)

    def held_out_windows(self, model: Any, split: str, *, whole: bool, documents: bool = False) -> Iterator[Batch]:
        """The windows of an evaluation as (inputs, targets), with `documents` as `TokenBatches`: all of the split, or
        the part that `Task.evaluate` describes."""
        view, r = self.view(split), self.run
        if whole or (split == "validation" and not r.eval_batches):
            return whole_split(model, view, documents)
        if split == "validation":
            return few_at_once(
                model, fixed_batches(view, r.sequence_length, r.batch_size, r.eval_batches, r.seed, documents)
            )
        # windows as long, and at most as many tokens, as of the validation split
        T = r.sequence_length if r.eval_batches else min(model.config.block_size, EVAL_WINDOW)
        held_out = r.eval_batches * r.batch_size or len(self.view("validation")) // T
        most = max(1, r.train_eval_rows * r.sequence_length // T)
        return spread_windows(model, view, T, min(held_out, most), documents)


def tokenizer_of(
    data: DataSettings, settings: TokenizerSettings, choices: list[Choice], needed: Sequence[str] = ()
) -> Tokenizer:
    """Load the tokenizer that is named, or learn it from the text; what is decided here is added to `choices`.

    needed: special tokens that one that is learned gets in any case.

    Raises:
        UsageError: there is no such kind.
    """
    kind, vocab_size = settings.kind, settings.vocab_size
    if settings.path is not None and kind is None:
        return load_tokenizer(settings.path)
    if kind is None or (kind == "bpe" and vocab_size is None):
        info = describe(data.source, text_field=data.text_field)
        if kind is None:
            alphabet: set[str] = set()
            if info.bytes is not None and info.bytes < SMALL_TEXT:
                pieces = read_documents(data.source, text_field=data.text_field)
                alphabet = set().union(*(set(piece.text) for piece in pieces))
            choices.append(tokenizer_choice(info.bytes, len(alphabet)))
            kind = choices[-1].value
        if kind == "bpe" and vocab_size is None:
            choices.append(vocab_size_choice(info.bytes))
            vocab_size = choices[-1].value
    if kind not in TOKENIZERS:
        raise UsageError(f"tokenizer.kind={kind!r} is unknown; {did_you_mean(str(kind), TOKENIZERS)}")
    specials = settings.specials
    if needed:
        own = TOKENIZERS[kind].specials or () if specials is None else specials
        specials = [*own, *(token for token in needed if token not in own)]
    tokenizer: Tokenizer = tokenizer_for(
        data.source,
        kind,
        vocab_size=vocab_size,
        path=settings.path,
        specials=specials,
        text_field=data.text_field,
        validation_fraction=data.validation_fraction,
    )
    return tokenizer


def tokenizer_choice(n_bytes: int | None, n_characters: int | None) -> Choice:
    """Characters while the alphabet is small and the text too; else byte-level BPE. None: a hub dataset, whose size is
    not known before it is read."""
    if n_bytes is None:
        return Choice("tokenizer.kind", "bpe", "a dataset of unknown size")
    size = f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 100_000 else f"{n_bytes / 1e3:.1f} kB"
    if n_bytes < SMALL_TEXT and (n_characters or 0) <= 256:
        return Choice("tokenizer.kind", "characters", f"{n_characters} different characters in {size} of text")
    if n_bytes < SMALL_TEXT:
        return Choice("tokenizer.kind", "bpe", f"{n_characters} different characters, too many for one token each")
    return Choice("tokenizer.kind", "bpe", f"{size} of text, more than characters are good for")


def vocab_size_choice(n_bytes: int | None) -> Choice:
    """A power of two between 512 and 32768: about the square root of the bytes, so that tokens are seen often."""
    if n_bytes is None:
        return Choice("tokenizer.vocab_size", 32_768, "a dataset of unknown size")
    size = 2 ** round(math.log2(max(512.0, min(32_768.0, math.sqrt(n_bytes)))))
    return Choice("tokenizer.vocab_size", size, f"a power of two near the square root of {n_bytes:,} bytes")
