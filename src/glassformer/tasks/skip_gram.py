"""Skip-gram with negative sampling: tell a word's neighbours from words that were drawn at random.

words      the  brave  king  of   France  fell        reach of `king` is 2: four neighbours
neighbour   x     x     -    x      x                 king . brave  ->  yes
noise      soup, until, film, ... (K for all the row) king . soup   ->  no

Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, section 2.2. Their words draw `negatives` each, anew for every
pair; here the words of a row share K of them, and each counts for negatives / K. That has the same expectation, and
makes one matrix product of what would be a walk through memory.

B rows, T words, K noise words, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.tasks.cross_entropy import IGNORED
from glassformer.tasks.objective import Batch, ObjectiveSettings, RowLosses, check_not_empty, padded


class SkipGramSettings(ObjectiveSettings):
    """window: how far a neighbour may stand away; each word draws its own reach between 1 and that, so that near ones
    count more. negatives: noise words a pair. noise: how many a row of words draws and shares. power: of a word's
    frequency, by which noise is drawn. subsample: words more frequent than this share of the text are left out now and
    then (`data.WordBatches`)."""

    window: int = Field(default=5, ge=1, le=1000)
    negatives: float = Field(default=5.0, gt=0)
    noise: int = Field(default=64, ge=1, le=100_000)
    power: float = Field(default=0.75, ge=0, le=1)
    subsample: float = Field(default=1e-4, gt=0, le=1)


class SkipGram:
    """The objective of `history.SkipGram`.

    A batch is (noise_BK, reach_BT, words_BT); a word of -100 fills up. A target is a pair of neighbours. Its loss is
    -log s(yes) - negatives * mean over the noise of log(1 - s(no)), s the sigmoid of the product of two vectors; before
    anything is learned (1 + negatives) ln 2. As in word2vec's code, a noise word may be a neighbour by chance.

    Args:
        counts: how often each word of the vocabulary stands in the text, (V,); a word with 0 is never drawn.
        settings: as in `SkipGramSettings`.

    Raises:
        UsageError: a setting makes no sense, or no word occurs.
    """

    asks: ClassVar[str] = "neighbour"
    data: ClassVar[str] = "words"
    Settings: ClassVar[type[ObjectiveSettings]] = SkipGramSettings
    by_chance: ClassVar[bool] = True
    alarm: ClassVar[float | None] = 1.0  # nat a target

    def __init__(self, *, counts: Sequence[float] | np.ndarray, **settings: float):
        self.settings = SkipGramSettings.make(**settings)
        weights = np.asarray(counts, dtype=np.float64)
        drawn = np.where(weights > 0, weights**self.settings.power, 0.0)
        if not drawn.sum():
            raise UsageError("no word of this vocabulary stands in the text; noise needs words to draw from")
        self._up_to = np.cumsum(drawn) / drawn.sum()  # (V,)
        self._last = int(np.flatnonzero(drawn)[-1])

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

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of losses in nats, number of pairs, further metrics)."""
        is_pair, yes, no = self._scores(model, batch)
        pairs_BT = is_pair.sum(dim=2)  # (B, T, T) -> (B, T)
        total = (F.softplus(-yes) * is_pair).sum() + (self._noise_cost(no) * pairs_BT).sum()
        count = pairs_BT.sum()
        return total, int(count) if count.device.type == "cpu" else count, {}

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What each row cost, its pairs, and how many neighbours were held likelier than all the noise."""
        is_pair, yes, no = self._scores(model, batch)
        costs_BTT = (F.softplus(-yes) + self._noise_cost(no).unsqueeze(2)) * is_pair
        hits_BTT = (yes > no.amax(dim=2, keepdim=True)) & is_pair
        pairs_B = is_pair.sum(dim=(1, 2))
        return RowLosses(costs_BTT.sum(dim=(1, 2), dtype=torch.float64), pairs_B, hits_BTT.sum(dim=(1, 2)))

    def count(self, batch: Batch) -> int:
        """The number of pairs."""
        return int(neighbouring(batch[1], batch[2]).sum())

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


def neighbouring(reach_BT: Tensor, words_BT: Tensor) -> Tensor:
    """(B, T, T) bool: whether word j stands within the reach of word i, is another place, and both are words."""
    places_T = torch.arange(words_BT.shape[1], device=words_BT.device)
    distance_TT = (places_T[:, None] - places_T[None, :]).abs()
    real_BT = words_BT != IGNORED
    near_BTT = (distance_TT <= reach_BT.unsqueeze(2)) & (distance_TT > 0)
    return near_BTT & real_BT.unsqueeze(1) & real_BT.unsqueeze(2)


@torch.no_grad()
def skip_gram_twin(own_VC: Tensor, other_VC: Tensor, batch: Batch, negatives: float) -> tuple[float, int]:
    """The loss of a batch and its pairs, one pair after the other, to be read."""
    noise_BK, reach_BT, words_BT = (part.tolist() for part in batch)
    total, pairs = 0.0, 0
    for noise, reach, words in zip(noise_BK, reach_BT, words_BT, strict=True):
        for i, word in enumerate(words):
            for j, neighbour in enumerate(words):
                if IGNORED in (word, neighbour) or not 0 < abs(i - j) <= reach[i]:
                    continue
                total -= float(F.logsigmoid(own_VC[word] @ other_VC[neighbour]))
                for k in noise:
                    total -= negatives / len(noise) * float(F.logsigmoid(-(own_VC[word] @ other_VC[k])))
                pairs += 1
    return total, pairs
