"""From a token store of words to rows of neighbours: frequent words are thinned out first, then the text is cut.

    text     the king of France is in the tower of London        each epoch leaves out others
    thinned      king    France    in     tower    London        so neighbours stand closer together
    rows     king France in | tower London ...                   cut again and shuffled every epoch

word2vec's subsampling (Mikolov et al. 2013, https://arxiv.org/abs/1310.4546, section 2.3): a word with the share f of
the text is kept with probability sqrt(t / f) + t / f, the formula of its code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from glassformer.data.batches import Batch, SeededBatches, philox
from glassformer.data.token_store import TokenView
from glassformer.errors import DataError, UsageError, plural

_THIN, _SHUFFLE, _COLLATE, _HELD_OUT, _HELD_OUT_COLLATE = 5, 6, 7, 8, 9  # streams of random numbers
Collate = Callable[[Any, Any], Batch]


class WordBatches(SeededBatches):
    """Training batches of rows of words. Each rank collates all rows of a step and keeps its own.

    Args:
        view: the split to draw from. counts: how often each word occurs in it, (V,); 0 leaves a word out.
        collate: a task's: rows of ids (B, T) and random numbers -> tensors with one row each.
        block_size: T, words of a row. subsample: t of the formula. others: as in `SeededBatches`.

    Raises:
        DataError: the thinned text does not fill the rows of one step.
        UsageError: a number is out of range.
    """

    def __init__(
        self,
        view: TokenView,
        counts: np.ndarray,
        collate: Collate,
        *,
        block_size: int,
        batch_size: int,
        subsample: float,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ):
        if block_size < 1:
            raise UsageError(f"block_size={block_size} is less than 1; try block_size=64")
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        self.view, self.collate, self.block_size = view, collate, block_size
        self.kept = keep_probabilities(counts, subsample)  # (V,)
        self._epoch: tuple[tuple[int, int], np.ndarray] | None = None
        rows = float((counts * self.kept).sum()) / block_size
        self.steps_an_epoch = int(0.98 * rows) // self.together  # an epoch may keep a few words less than the mean
        if self.steps_an_epoch < 1:
            raise DataError(
                f"{plural(round(rows), 'row')} of {block_size} words, and a step reads {self.together}; give more text "
                "or a smaller training.batch_size"
            )

    def batch(self, step: int) -> Batch:
        epoch, place = divmod(step, self.steps_an_epoch)
        rows = self._rows(epoch)[place * self.together :][: self.together]
        collated = self.collate(rows, philox(self.seed, _COLLATE, step))
        return tuple(part[self.rank * self.batch_size :][: self.batch_size] for part in collated)

    def _rows(self, epoch: int) -> np.ndarray:
        """The rows of an epoch, thinned, cut and shuffled: (n, T)."""
        key = (self.seed, epoch)
        if self._epoch is None or self._epoch[0] != key:
            random = philox(self.seed, _THIN, epoch)
            rows = cut(thinned(self.view, self.kept, random), self.block_size, int(random.integers(self.block_size)))
            wanted = self.steps_an_epoch * self.together
            order = philox(self.seed, _SHUFFLE, epoch).permutation(max(len(rows), wanted)) % len(rows)
            self._epoch = key, rows[order[:wanted]]
        return self._epoch[1]


def word_rows(
    view: TokenView,
    counts: np.ndarray,
    collate: Collate,
    *,
    block_size: int,
    batch_size: int,
    subsample: float,
    seed: int,
    most: int | None = None,
) -> Iterator[Batch]:
    """A split once, thinned and drawn the same way at each call: batches for an evaluation.

    Args:
        counts: of the training text, which decide what is frequent.
        most: so many rows at most, evenly over the split.

    Raises:
        DataError: the thinned split does not fill a row.
    """
    rows = cut(thinned(view, keep_probabilities(counts, subsample), philox(seed, _HELD_OUT, 0)), block_size, 0)
    if not len(rows):
        raise DataError(f"the {view.name} split does not fill one row of {block_size} words; give more text")
    if most is not None and most < len(rows):
        rows = rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]
    for number, start in enumerate(range(0, len(rows), batch_size)):
        yield collate(rows[start : start + batch_size], philox(seed, _HELD_OUT_COLLATE, number))


def word_counts(view: TokenView, vocab_size: int, without: list[int]) -> np.ndarray:
    """How often each word occurs in a split, (V,) float64; those of `without` (special tokens) count nothing."""
    counts = np.zeros(vocab_size)
    for start in range(0, len(view), 1 << 22):
        counts += np.bincount(view.read(start, min(1 << 22, len(view) - start)), minlength=vocab_size)
    counts[without] = 0
    return counts


def keep_probabilities(counts: np.ndarray, subsample: float) -> np.ndarray:
    """With which probability each word is kept, (V,) float32.

    >>> [round(float(p), 3) for p in keep_probabilities(np.array([10, 990, 0]), 0.01)]
    [1.0, 0.111, 0.0]
    """
    share = counts / max(counts.sum(), 1)
    with np.errstate(divide="ignore", invalid="ignore"):
        kept = np.sqrt(subsample / share) + subsample / share
    return np.where(counts > 0, np.minimum(kept, 1.0), 0.0).astype(np.float32)


def thinned(view: TokenView, kept: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The ids of a split that are kept, in order."""
    pieces = []
    for start in range(0, len(view), 1 << 22):
        ids = view.read(start, min(1 << 22, len(view) - start))
        pieces.append(ids[random.random(len(ids), dtype=np.float32) < kept[ids]].astype(np.int32))
    return np.concatenate(pieces)


def cut(ids: np.ndarray, block_size: int, first: int) -> np.ndarray:
    """Rows of `block_size` ids from `first` on, (n, T); what fills no row is left out."""
    n = max(0, (len(ids) - first) // block_size)
    return ids[first : first + n * block_size].reshape(n, block_size)
