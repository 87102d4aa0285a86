"""From encoded examples to batches: shuffled and sorted by length for training, every example once for evaluation.

    examples   (source ids, target ids) | (ids, label) | (ids, labels) | ids
    order      3 0 4 1 5 2 ...                         an epoch, shuffled
    pools      [3 0 4 1 5 2] [...]                     stretches of some steps
    sorted     [0 2 | 5 3 | 1 4] [...]                 by length, and cut into steps: little padding
    shuffled   [5 3 | 0 2 | 1 4] [...]                 the steps of a pool, so that lengths come in no order

Each example is collated by itself, with its own random numbers, and the rows are then padded to one width. So what is
random about an example (its masks, its removed spans) depends on it and on nothing beside it: not on the batch
size, nor on how many ranks share the work. Where nothing is random, a batch is collated at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from glassformer.data.batches import IGNORED, Batch, SeededBatches, check_batch_size, philox
from glassformer.errors import DataError, UsageError

Collate = Callable[[Sequence[Any], Any], Batch]
_ORDER, _POOL, _EXAMPLE = 2, 3, 4  # streams of random numbers


class ExampleBatches(SeededBatches):
    """Training batches of examples.

    Every epoch holds every example once. Where an epoch is no whole number of steps, a step holds its last examples and
    the next one's first; nothing is dropped.

    Args:
        examples: anything with a length and integer indices; the rows above.
        collate: a task's: examples and their random numbers -> tensors with one row an example. It is given one
            example at a time.
        by_chance: whether `collate` draws; if not, it is given all examples of a batch, and no random numbers.
        pool: steps that are sorted by length together. More: less padding, and batches more alike within; 1: no
            sorting.
        pad_token: what fills up shorter rows (targets, the last tensor, are filled with -100).
        others: as in `SeededBatches`.

    Raises:
        DataError: there is no example.
        UsageError: a number is out of range.
    """

    def __init__(
        self,
        examples: Sequence[Any],
        collate: Collate,
        *,
        batch_size: int,
        seed: int,
        by_chance: bool = True,
        rank: int = 0,
        world_size: int = 1,
        pool: int = 64,
        pad_token: int = 0,
    ):
        _check(examples, batch_size)
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        if pool < 1:
            raise UsageError(f"pool={pool} is less than 1; try pool=1, which sorts nothing")
        self.examples, self.collate, self.by_chance = examples, collate, by_chance
        self.pool, self.pad_token = pool, pad_token
        self._lengths = lengths_of(examples)
        self._epochs: dict[tuple[int, int], np.ndarray] = {}  # the orders of the last two epochs, by (seed, number)

    def batch(self, step: int) -> Batch:
        numbers = self._numbers(step)
        epochs, places = np.divmod(numbers, len(self.examples))
        chosen = [int(self._order(int(epoch))[place]) for epoch, place in zip(epochs, places, strict=True)]
        seed = self.seed if self.by_chance else None
        return _collated(self.examples, chosen, numbers.tolist(), self.collate, seed, self.pad_token)

    def read_within(self, steps: int) -> list[int]:
        """Places of the examples that the first `steps` steps read, of all ranks, in order."""
        n = len(self.examples)
        if steps * self.together >= n:
            return list(range(n))
        return sorted(self._order(0)[: steps * self.together].tolist())

    def _numbers(self, step: int) -> np.ndarray:
        """Our rows of a step, as numbers counted from the start of the run: every `world_size`-th, so that ranks get
        rows of like length and none waits for the others."""
        return step * self.together + np.arange(self.rank, self.together, self.world_size)

    def _order(self, epoch: int) -> np.ndarray:
        """The examples of an epoch in the order in which they are read."""
        key = (self.seed, epoch)
        if key not in self._epochs:
            order = philox(self.seed, _ORDER, epoch).permutation(len(self.examples))
            size = self.pool * self.together
            first = -epoch * len(order) % self.together  # fill up the step that the epoch before began
            last = first + (len(order) - first) // self.together * self.together  # whole steps up to here
            random = philox(self.seed, _POOL, epoch)
            for start in range(first, last, size):
                pool = order[start : min(start + size, last)]  # (steps x together,), a view
                by_length = pool[np.lexsort(self._lengths[pool].T[::-1])] if self.pool > 1 else pool
                pool[:] = random.permutation(by_length.reshape(-1, self.together)).ravel()
            self._epochs = {**dict(list(self._epochs.items())[-1:]), key: order}
        return self._epochs[key]


def in_order(
    examples: Sequence[Any],
    collate: Collate,
    batch_size: int,
    seed: int,
    *,
    by_chance: bool = True,
    pad_token: int = 0,
) -> Iterator[Batch]:
    """Every example once, in the order of `length_order`; the last batch may have fewer rows.

    An example's random numbers depend on (seed, its place in `examples`), so that the same masks are asked for at every
    call and with every batch size.

    Raises:
        DataError: there is no example.
        UsageError: batch_size is below 1.
    """
    _check(examples, batch_size)
    order = length_order(examples)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size].tolist()
        yield _collated(examples, chosen, chosen, collate, seed if by_chance else None, pad_token)


def length_order(examples: Sequence[Any]) -> np.ndarray:
    """Places of the examples, from the shortest to the longest; equal ones in their own order. (N,) int64."""
    return np.lexsort(lengths_of(examples).T[::-1])


def lengths_of(examples: Sequence[Any]) -> np.ndarray:
    """(source tokens, target tokens) of each example; the second is 0 where there is one label, or none. (N, 2)."""
    rows = [
        (_size(example[0]), _size(example[1])) if isinstance(example, tuple) else (_size(example), 0)
        for example in examples
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _size(part: Any) -> int:
    """Tokens of a part of an example; of inputs with their targets, of the inputs."""
    if isinstance(part, tuple):
        return _size(part[0])
    return len(part) if isinstance(part, (Sequence, np.ndarray)) else 0


def _collated(
    examples: Sequence[Any], chosen: list[int], numbers: list[int], collate: Collate, seed: int | None, pad_token: int
) -> Batch:
    """Each example by itself with the random numbers of its number, then together; without a seed all at once."""
    if seed is None:
        return collate([examples[i] for i in chosen], None)
    rows = [collate([examples[i]], philox(seed, _EXAMPLE, n)) for i, n in zip(chosen, numbers, strict=True)]
    last = len(rows[0]) - 1
    return tuple(
        _stacked(tensors, IGNORED if place == last else pad_token)
        for place, tensors in enumerate(zip(*rows, strict=True))
    )


def _stacked(tensors: Sequence[torch.Tensor], fill: int) -> torch.Tensor:
    """Rows (1,), (1, T_i) or (1, T_i, I) as (B,), (B, T) or (B, T, I), T the longest, filled up behind."""
    if tensors[0].dim() == 1:
        return torch.cat(tuple(tensors))
    T = max(tensor.shape[1] for tensor in tensors)
    further = (0, 0) * (tensors[0].dim() - 2)  # `pad` begins with the last axis
    return torch.cat([F.pad(tensor, (*further, 0, T - tensor.shape[1]), value=fill) for tensor in tensors])


def _check(examples: Sequence[Any], batch_size: int) -> None:
    if not len(examples):
        raise DataError("there are no examples; give a set or a file with some")
    check_batch_size(batch_size)
