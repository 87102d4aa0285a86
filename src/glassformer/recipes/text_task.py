"""A text as a task: a token store, and at every place of it, what comes next."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from glassformer.data import (
    TokenBatches,
    TokenStore,
    describe,
    fixed_batches,
    read_documents,
    tokenizer_for,
)
from glassformer.data.batches import check_length
from glassformer.data.prepare import prepare
from glassformer.data.token_store import SPLITS
from glassformer.errors import DataError, UsageError, did_you_mean, plural
from glassformer.evaluation.bigram import bigram_loss
from glassformer.evaluation.examples import evaluate_rows
from glassformer.generation import generate
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.recipes.choices import Choice
from glassformer.recipes.held_out import EVAL_WINDOW, few_at_once, spread_windows, training_rows, whole_split
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import sequence_length
from glassformer.tasks import OBJECTIVES, Objective
from glassformer.training import World
from glassformer.training.diagnostics import activations
from glassformer.training.loop import Batches, Evaluated
from glassformer.training.monitor import text_warnings

SMALL_TEXT = 5_000_000  # bytes; up to here characters are good enough
MOST_COUNTED = 20_000_000  # tokens of a text in which the doctor looks for every token of the vocabulary


class TextTask:
    """Next token, or another objective on a stream of tokens; see `Task` for what the methods promise.

    inherited: whether the tokenizer is that of the model to start from, so that nothing about it can be chosen.
    """

    source_tokenizer: Tokenizer | None = None
    labels: tuple[str, ...] = ()
    longest = 0
    command = "generate"

    def __init__(self, r: Recipe, tokenizer: Tokenizer, store: TokenStore, *, inherited: bool = False):
        self.r, self.tokenizer, self.store, self.inherited = r, tokenizer, store, inherited
        self.key = str(store.meta["key"])
        self.n_answers = tokenizer.vocab_size
        self.n_train = len(store.split("train"))

    def facts(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.vocab_size}

    def sizes(self) -> dict[str, int]:
        """What a plan asks for."""
        return {"train_tokens": self.n_train, "val_tokens": len(self.store.split("validation"))}

    def check(self, config: Any, length: int = 0) -> None:
        check_lengths(self.store, None if config is None else length)

    def objective(self) -> Objective:
        objective: Objective = OBJECTIVES[self.r.task.kind](**self.r.task.settings)
        return objective

    def batches(self, config: Any, world: World) -> Batches:
        t = self.r.training
        assert isinstance(t.batch_size, int)
        return TokenBatches(
            self.store.split("train"),
            block_size=sequence_length(config, t),
            batch_size=t.batch_size // world.size,
            seed=t.seed,
            order=self.r.data.order,
            rank=world.rank,
            world_size=world.size,
        )

    def evaluate(self, model: Any, *, whole: bool = True, split: str = "validation") -> Evaluated:
        check_split(split)
        view, t = self.store.split(split), self.r.training
        length = sequence_length(model.config, t)
        if whole or (split == "validation" and not t.eval_batches):
            batches = whole_split(model, view)
        elif split == "validation":
            assert isinstance(t.batch_size, int)
            fixed = fixed_batches(view, length, t.batch_size, t.eval_batches, t.seed)
            batches = few_at_once(fixed, model.config, next(model.parameters()).device.type)
        else:
            T = length if t.eval_batches else min(model.config.block_size, EVAL_WINDOW)  # as the validation split
            held_out = t.eval_batches * int(t.batch_size or 1) or len(self.store.split("validation")) // T
            batches = spread_windows(model, view, T, min(held_out, max(1, training_rows(t) * length // T)))
        return Evaluated(evaluate_rows(model, self.objective(), batches)[0], view.bytes / len(view))

    def sample(self, model: Any, step: int) -> str:
        t = self.r.training
        settings: dict[str, Any] = {"max_new_tokens": t.sample_tokens, "temperature": 0.8, "seed": t.seed + step}
        return t.sample_prompt + generate(model, self.tokenizer, t.sample_prompt, **settings)[0].text

    def activations(self, model: Any, pattern: str) -> dict[str, dict[str, float]]:
        ids_BT = next(whole_split(model, self.store.split("validation")))[0]
        return activations(model, ids_BT.to(next(model.parameters()).device), pattern)

    def warnings(self, config: Any) -> list[str]:
        """What the doctor says of the text before the first step. A long text is taken to hold every token."""
        assert isinstance(self.r.training.batch_size, int)
        view = self.store.split("train")
        counted = len(view) <= MOST_COUNTED and not self.inherited
        return text_warnings(
            train_tokens=len(view),
            tokens_a_step=self.r.training.batch_size * sequence_length(config, self.r.training),
            seen=len(np.unique(view.gather(np.array([0]), len(view)))) if counted else config.vocab_size,
            vocab_size=config.vocab_size,
        )

    def derived(self) -> dict[str, Any]:
        train, held_out = self.store.split("train"), self.store.split("validation")
        return {"bigram_loss": bigram_loss(train, held_out, self.tokenizer.vocab_size)}


def check_split(split: str) -> None:
    """Raise unless a text has such a split."""
    if split not in SPLITS:
        raise UsageError(f"a text has no {split} split; use {' or '.join(SPLITS)}, or leave out --split")


def check_lengths(store: TokenStore, block_size: int | None = None) -> None:
    """Raise unless a window of training text and a prediction of held-out text can be had."""
    if block_size is not None:
        check_length(store.split("train"), block_size)
    if (n := len(store.split("validation"))) < 2:
        raise DataError(
            f"{store.meta['source']}: {plural(n, 'token')} held out for validation, and a prediction needs 2; "
            "give more text, or data.validation_fraction=0.1"
        )


def tokenizer_choice(n_bytes: int | None, n_characters: int | None) -> Choice:
    """Characters while the alphabet is small and the text too; else byte-level BPE, growing with the text. None: a
    hub dataset, whose size is not known before it is read."""
    if n_bytes is None:
        return Choice("tokenizer.kind", "bpe", "a dataset of unknown size")
    if n_bytes < SMALL_TEXT and (n_characters or 0) <= 256:
        return Choice(
            "tokenizer.kind", "characters", f"{n_characters} different characters in {_megabytes(n_bytes)} of text"
        )
    if n_bytes < SMALL_TEXT:
        return Choice("tokenizer.kind", "bpe", f"{n_characters} different characters, too many for one token each")
    return Choice("tokenizer.kind", "bpe", f"{_megabytes(n_bytes)} of text, more than characters are good for")


def vocab_size_choice(n_bytes: int | None) -> Choice:
    """A power of two between 512 and 32768: about the square root of the bytes, so that tokens are seen often."""
    if n_bytes is None:
        return Choice("tokenizer.vocab_size", 32_768, "a dataset of unknown size")
    size = 2 ** round(math.log2(max(512.0, min(32_768.0, math.sqrt(n_bytes)))))
    return Choice("tokenizer.vocab_size", size, f"a power of two near the square root of {n_bytes:,} bytes")


def _megabytes(n_bytes: int) -> str:
    return f"{n_bytes / 1e6:.1f} MB" if n_bytes >= 100_000 else f"{n_bytes / 1e3:.1f} kB"


def tokenizer_of(r: Recipe) -> tuple[Tokenizer, list[Choice]]:
    """The tokenizer that is named, or one made from the text; and what was chosen for want of a name."""
    t, choices = r.tokenizer, list[Choice]()
    if t.path is not None and t.kind is None:
        return load_tokenizer(t.path), []
    kind, vocab_size = t.kind, t.vocab_size
    if kind is None or (kind == "bpe" and vocab_size is None):
        info = describe(r.data.source, text_field=r.data.text_field)
        if kind is None:
            alphabet: set[str] = set()
            if info.bytes is not None and info.bytes < SMALL_TEXT:
                pieces = read_documents(r.data.source, text_field=r.data.text_field)
                alphabet = set().union(*(set(piece.text) for piece in pieces))
            choices.append(tokenizer_choice(info.bytes, len(alphabet)))
            kind = choices[-1].value
        if kind == "bpe" and vocab_size is None:
            choices.append(vocab_size_choice(info.bytes))
            vocab_size = choices[-1].value
    if kind not in TOKENIZERS:
        raise UsageError(f"tokenizer.kind={kind!r} is unknown; {did_you_mean(str(kind), TOKENIZERS)}")
    tokenizer = tokenizer_for(
        r.data.source,
        kind,
        vocab_size=vocab_size,
        path=t.path,
        text_field=r.data.text_field,
        validation_fraction=r.data.validation_fraction,
    )
    return tokenizer, choices


def store_of(r: Recipe, tokenizer: Tokenizer) -> TokenStore:
    """The text of a recipe in tokens: prepared now, or found in the cache."""
    return prepare(
        r.data.source,
        tokenizer,
        validation_fraction=r.data.validation_fraction,
        text_field=r.data.text_field,
        max_tokens=r.data.max_tokens,
    )
