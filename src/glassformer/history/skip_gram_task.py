"""Skip-gram with negative sampling: separate a word's neighbours from words drawn at random.

words      the  brave  king  of   France  fell        reach of `king` is 2: four neighbours
neighbour   x     x     -    x      x                 king . brave  ->  yes
noise      soup, until, film, ... (K for all the row) king . soup   ->  no

Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, section 2.2. Their words draw `negatives` each, again for every
pair; here the words of a row share K of them, and each counts for negatives / K. That has the same expectation, and
makes one matrix product of what would be a walk through memory.

B rows, T words, K noise words, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Figure, Note
from glassformer.history.word_batches import WordBatches, word_counts, word_rows
from glassformer.history.word_tests import load_word_tests
from glassformer.history.word_vectors import WordVectorScores, score_word_vectors
from glassformer.renamed import keep_old_names
from glassformer.tasks.base import Batch, Batches, Loss
from glassformer.tasks.losses import IGNORED, check_not_empty, padded
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.text import TextTask

if TYPE_CHECKING:
    from glassformer.tasks.text import TextSource

SHOWN = ("king", "good", "actor", "two", "love")  # whose neighbours a sample shows, where the vocabulary has them
EVAL_ROWS = 64  # rows that an evaluation puts through the model together


class SkipGramSettings(TaskSettings):
    """[task] of kind skip_gram"""

    window: int = Field(default=5, ge=1, le=1000)
    """how far a neighbour may stand away; each word draws its own reach between 1 and that: near ones count more"""
    negatives: float = Field(default=5.0, gt=0)
    """noise words a pair"""
    noise: int = Field(default=64, ge=1, le=100_000)
    """noise words that a row draws and shares"""
    power: float = Field(default=0.75, ge=0, le=1)
    """of a word's frequency, by which noise is drawn"""
    subsample: float = Field(default=1e-4, gt=0, le=1)
    """words more frequent than this share of the text are left out now and then (`WordBatches`)"""


class SkipGramTask(TextTask):
    """The task of `history.SkipGram`.

    A batch is (noise_BK, reach_BT, words_BT); a word of -100 is padding. A target is a pair of neighbours. Its loss is
    -log s(yes) - negatives * mean over the noise of log(1 - s(no)), s the sigmoid of the product of two vectors; before
    anything is learned (1 + negatives) ln 2. As in word2vec's code, a noise word may happen to be a neighbour.

    Args:
        counts: how often each word of the vocabulary occurs in the text, (V,); a word with 0 is never drawn.

    Raises:
        UsageError: a setting is out of range, or no word occurs.
    """

    Settings: ClassVar[type[TaskSettings]] = SkipGramSettings
    asks: ClassVar[str] = "neighbour"
    command: ClassVar[str] = "look neighbours"

    def __init__(self, *, counts: Sequence[float] | np.ndarray, **settings: Any):
        super().__init__(**settings)
        self.counts = np.asarray(counts, dtype=np.float64)
        drawn = np.where(self.counts > 0, self.counts**self.settings.power, 0.0)
        if not drawn.sum():
            raise UsageError("no word of this vocabulary occurs in the text; noise needs words to draw from")
        self._up_to = np.cumsum(drawn) / drawn.sum()  # (V,)
        self._last = int(np.flatnonzero(drawn)[-1])

    @classmethod
    def arguments(cls, source: TextSource) -> dict[str, Any]:
        special = sorted(source.tokenizer.special_tokens.values())
        return {"counts": word_counts(source.store.split("train"), source.tokenizer.vocab_size, special)}

    @classmethod
    def default_tokenizer(cls, tokenizer: TokenizerSettings, choices: list[Choice]) -> TokenizerSettings:
        if tokenizer.kind is not None or tokenizer.path is not None:
            return tokenizer
        choices.append(Choice("tokenizer.kind", "plain-words", "a vector for each word"))
        return tokenizer.model_copy(update={"kind": "plain-words"})

    @property
    def n_answers(self) -> int:
        """Yes or no for a pair and for each of its noise words: a blind guess costs (1 + negatives) ln 2."""
        return round(2 ** (1 + self.settings.negatives))

    def check(self, config: Any) -> None:
        for split in ("train", "validation"):
            if len(self.view(split)) < 2:
                raise DataError(f"{self.source.store.meta['source']}: no words in its {split} split; give more text")

    def facts(self) -> dict[str, Any]:
        known = float(self.counts.sum() / self.source.n_train)
        return {"words": int((self.counts > 0).sum()), "known_words_of_text": known}

    def collate(self, examples: Sequence[Sequence[int]], random: np.random.Generator) -> Batch:
        """Rows of words -> a batch: their reach and their noise are drawn from `random`.

        Raises:
            DataError: there is no row, or one has no word.
        """
        check_not_empty(examples, "text")
        words_BT, _ = padded(examples, IGNORED)
        B, T = words_BT.shape
        s = self.settings
        reach_BT = torch.from_numpy(random.integers(1, s.window + 1, size=(B, T)))
        noise = np.searchsorted(self._up_to, random.random((B, s.noise)), side="right")
        return torch.from_numpy(np.minimum(noise, self._last)), reach_BT, words_BT

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of every pair."""
        is_pair, yes, no = self._scores(model, batch)
        pairs_BT = is_pair.sum(dim=2)  # (B, T, T) -> (B, T)
        total = (F.softplus(-yes) * is_pair).sum() + (self._noise_cost(no) * pairs_BT).sum()
        count = pairs_BT.sum()
        return Loss(total, int(count) if count.device.type == "cpu" else count)

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """The loss of each row, its pairs, and how many neighbours scored above all the noise."""
        is_pair, yes, no = self._scores(model, batch)
        costs_BTT = (F.softplus(-yes) + self._noise_cost(no).unsqueeze(2)) * is_pair
        hits_BTT = (yes > no.amax(dim=2, keepdim=True)) & is_pair
        pairs_B = is_pair.sum(dim=(1, 2))
        return RowLosses(costs_BTT.sum(dim=(1, 2), dtype=torch.float64), pairs_B, hits_BTT.sum(dim=(1, 2)))

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        return WordBatches(
            self.view(split),
            self.counts,
            self.collate,
            block_size=self.run.sequence_length,
            batch_size=self.run.batch_size // world_size,
            subsample=self.settings.subsample,
            seed=self.run.seed,
            rank=rank,
            world_size=world_size,
        )

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        view, most, T = self.view(split), None, model.config.block_size
        if split == "train" and not whole:
            most = max(1, min(len(self.view("validation")) // T, self.run.train_eval_rows))
        rows = word_rows(
            view,
            self.counts,
            self.collate,
            block_size=T,
            batch_size=EVAL_ROWS,
            subsample=self.settings.subsample,
            seed=self.run.seed,
            most=most,
        )
        windows, accuracy = evaluate_rows(model, self.rows, rows)
        return windows.metrics(accuracy=accuracy)

    def example_batch(self, model: Any) -> Batch:
        view = self.view("validation")
        return self.collate([view.read(0, min(model.config.block_size, len(view)))], np.random.default_rng(0))

    def sample(self, model: Any, step: int) -> list[Figure]:
        words, table = self._vectors(model)
        place = {word.strip(): i for i, word in reversed(list(enumerate(words)))}
        shown = [word for word in SHOWN if word in place] or [word.strip() for word in words[: len(SHOWN)]]
        lines = [f"{word}: {', '.join(_nearest(table, words, table[place[word]], {place[word]}))}" for word in shown]
        if {"king", "man", "woman"} <= place.keys():
            king, man, woman = (place[word] for word in ("king", "man", "woman"))
            unit = F.normalize(table, dim=1)
            target = unit[king] - unit[man] + unit[woman]
            lines.append(f"king - man + woman: {', '.join(_nearest(table, words, target, {king, man, woman}))}")
        return [Note("\n".join(lines))]

    def extra_scores(self, model: Any, split: str = "validation") -> WordVectorScores:
        """Scores against people's judgements of words; no split is read.

        Raises:
            DataError: the lists of words cannot be fetched.
        """
        words, table = self._vectors(model)
        return score_word_vectors(words, table, load_word_tests())

    def _vectors(self, model: Any) -> tuple[list[str], Tensor]:
        """The words of the vocabulary, without special tokens, and their vectors (N, C) in fp32."""
        special = {*self.tokenizer.special_tokens.values(), *self.tokenizer.missing_ids}
        ids = [i for i in range(self.tokenizer.vocab_size) if i not in special]
        return [self.tokenizer.token_text(i) for i in ids], model.embedding.weight.detach()[ids].float().cpu()

    def _noise_cost(self, no_BTK: Tensor) -> Tensor:
        """Of one pair of each word: (B, T, K) -> (B, T)."""
        return F.softplus(no_BTK).mean(dim=2) * self.settings.negatives

    def _scores(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(which are neighbours (B, T, T), products with the words of the row (B, T, T), with the noise (B, T, K))."""
        noise_BK, reach_BT, words_BT = batch
        T = words_BT.shape[1]
        filled_BT = words_BT.clamp_min(0)
        vectors_BTC = model(filled_BT)
        others = model.neighbours(torch.cat([filled_BT, noise_BK], dim=1))  # type: ignore[operator]  # (B, T + K, C)
        products = vectors_BTC @ others.transpose(1, 2)  # (B, T, C) @ (B, C, T + K) -> (B, T, T + K)
        products = products.to(torch.promote_types(products.dtype, torch.float32))
        return neighbouring(reach_BT, words_BT), products[:, :, :T], products[:, :, T:]


def _nearest(table_NC: Tensor, words: list[str], vector_C: Tensor, without: set[int], n: int = 6) -> list[str]:
    """The words with the smallest angle to a vector, the nearest first."""
    cosines_N = F.normalize(table_NC, dim=1) @ F.normalize(vector_C, dim=0)
    order = cosines_N.argsort(descending=True).tolist()
    return [words[i] for i in order if i not in without][:n]


def neighbouring(reach_BT: Tensor, words_BT: Tensor) -> Tensor:
    """(B, T, T) bool: whether word j is within the reach of word i, is another place, and both are words."""
    places_T = torch.arange(words_BT.shape[1], device=words_BT.device)
    distance_TT = (places_T[:, None] - places_T[None, :]).abs()
    real_BT = words_BT != IGNORED
    near_BTT = (distance_TT <= reach_BT.unsqueeze(2)) & (distance_TT > 0)
    return near_BTT & real_BT.unsqueeze(1) & real_BT.unsqueeze(2)


keep_old_names(__name__)
