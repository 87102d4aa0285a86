"""A text as a task for word vectors: rows of words, thinned out, and which of them stand together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from glassformer.data import TokenStore, WordBatches, load_word_tests, word_counts, word_rows
from glassformer.errors import DataError
from glassformer.evaluation.examples import evaluate_rows
from glassformer.evaluation.word_vectors import WordVectorScores, score_word_vectors
from glassformer.inspection.geometry import analogy, neighbours
from glassformer.inspection.vectors import Vectors, vectors_of
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.recipes.choices import Choice
from glassformer.recipes.held_out import training_rows
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import sequence_length
from glassformer.recipes.text_task import check_split, store_of, tokenizer_of
from glassformer.tasks.skip_gram import SkipGram, SkipGramSettings
from glassformer.training import World
from glassformer.training.diagnostics import activations_during
from glassformer.training.loop import Batches, Evaluated

SHOWN = ("king", "good", "actor", "two", "love")  # whose neighbours a sample shows, where the vocabulary has them
EVAL_ROWS = 64  # rows that an evaluation puts through the model together


class WordTask:
    """Neighbouring words on a text; see `Task` for what the methods promise."""

    source_tokenizer: Tokenizer | None = None
    labels: tuple[str, ...] = ()
    longest = 0
    command = "look neighbours"

    def __init__(self, r: Recipe, tokenizer: Tokenizer, store: TokenStore):
        self.r, self.tokenizer, self.store = r, tokenizer, store
        self.key = str(store.meta["key"])
        self.n_train = len(store.split("train"))
        special = sorted(tokenizer.special_tokens.values())
        self.counts = word_counts(store.split("train"), tokenizer.vocab_size, special)
        settings = SkipGramSettings.make(**r.task.settings)
        self.subsample = settings.subsample
        # yes or no for a pair and for each of its noise words: a blind guess costs (1 + negatives) ln 2
        self.n_answers = round(2 ** (1 + settings.negatives))

    def facts(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.vocab_size}

    def check(self, config: Any, length: int = 0) -> None:
        for split in ("train", "validation"):
            if len(self.store.split(split)) < 2:
                raise DataError(f"{self.store.meta['source']}: no words in its {split} split; give more text")

    def objective(self) -> SkipGram:
        return SkipGram(counts=self.counts, **self.r.task.settings)

    def batches(self, config: Any, world: World) -> Batches:
        t = self.r.training
        assert isinstance(t.batch_size, int)
        return WordBatches(
            self.store.split("train"),
            self.counts,
            self.objective().collate,
            block_size=sequence_length(config, t),
            batch_size=t.batch_size // world.size,
            subsample=self.subsample,
            seed=t.seed,
            rank=world.rank,
            world_size=world.size,
        )

    def evaluate(self, model: Any, *, whole: bool = True, split: str = "validation") -> Evaluated:
        check_split(split)
        objective, most = self.objective(), None
        if split == "train" and not whole:
            held_out = len(self.store.split("validation")) // model.config.block_size
            most = max(1, min(held_out, training_rows(self.r.training)))
        rows = word_rows(
            self.store.split(split),
            self.counts,
            objective.collate,
            block_size=model.config.block_size,
            batch_size=EVAL_ROWS,
            subsample=self.subsample,
            seed=self.r.training.seed,
            most=most,
        )
        windows, accuracy = evaluate_rows(model, objective, rows)
        return Evaluated(windows, accuracy=accuracy)

    def sample(self, model: Any, step: int) -> str:
        vectors = vectors_of(model, self.tokenizer)
        return "\n".join(_lines(vectors))

    def activations(self, model: Any, pattern: str) -> dict[str, dict[str, float]]:
        ids = self.store.split("validation").read(0, min(model.config.block_size, len(self.store.split("validation"))))
        batch = self.objective().collate([ids], np.random.default_rng(0))
        device = next(model.parameters()).device
        return activations_during(
            model, lambda: self.objective().rows(model, tuple(part.to(device) for part in batch)), pattern
        )

    def warnings(self, config: Any) -> list[str]:
        return []

    def derived(self) -> dict[str, Any]:
        return {"words": int((self.counts > 0).sum()), "known_words_of_text": float(self.counts.sum() / self.n_train)}

    def scores(self, model: Any) -> WordVectorScores:
        """What people said of words, against the vectors.

        Raises:
            DataError: the lists of words cannot be had.
        """
        vectors = vectors_of(model, self.tokenizer)
        return score_word_vectors(vectors.words, vectors.table, load_word_tests())


def _lines(vectors: Vectors) -> list[str]:
    """What a sample shows: neighbours of a few words, and the best known analogy."""
    shown = [word for word in SHOWN if word in vectors] or vectors.words[: len(SHOWN)]
    lines = [f"{word}: {', '.join(neighbours(vectors, word, top=6).words)}" for word in shown]
    if all(word in vectors for word in ("king", "man", "woman")):
        lines.append(f"king - man + woman: {', '.join(analogy(vectors, 'king', 'man', 'woman', top=6).words)}")
    return lines


def open_words(r: Recipe, folder: Path | None = None) -> tuple[WordTask, list[Choice]]:
    """The text of a recipe as words: with the tokenizer in `folder`, else the one that the recipe names."""
    choices = []
    if folder is None and r.tokenizer.kind is None and r.tokenizer.path is None:
        choices.append(Choice("tokenizer.kind", "plain-words", "a vector for each word"))
        r = r.with_values({"tokenizer.kind": "plain-words"})
    tokenizer, more = (load_tokenizer(folder), []) if folder is not None else tokenizer_of(r)
    return WordTask(r, tokenizer, store_of(r, tokenizer)), choices + more
