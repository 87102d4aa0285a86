"""Batches of tensors: what all kinds have in common, and windows of a token store.

A window of a text, at random for training and every one once for evaluation:

    tokens   18 47 56 57 58  1 15 47 58          block_size T = 4, a window is T + 1 tokens
    inputs   18 47 56 57                         what the model reads
    targets     47 56 57 58                      what it should predict at each position

B batch, T time; inputs and targets are int64 of shape (B, T).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from glassformer.data.token_store import TokenView
from glassformer.errors import UsageError, did_you_mean

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = tuple[torch.Tensor, ...]

IGNORED = -100  # a target that does not count: padding, a prompt (PyTorch's own convention)
ORDERS = ("epochs", "random", "consecutive")


class SeededBatches:
    """An endless stream of training batches. The batch of step n depends on (seed, n) alone.

    Random numbers come from a counter-based generator (Philox, Salmon et al. 2011). So the state is one number,
    resuming is exact and immediate, and `world_size` ranks with B rows each read disjoint parts of what one process
    with `world_size * B` rows reads. A subclass gives `batch(step)`.

    Args:
        batch_size: B, rows of a batch on this rank. rank, world_size: which part of each step's rows is ours.

    Raises:
        UsageError: a number is out of range.
    """

    def __init__(self, *, batch_size: int, seed: int, rank: int = 0, world_size: int = 1):
        check_batch_size(batch_size)
        if not 0 <= rank < world_size:
            raise UsageError(f"rank={rank} is not one of 0 ... world_size - 1 = {world_size - 1}")
        self.batch_size, self.seed, self.rank, self.world_size = batch_size, seed, rank, world_size
        self.step = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        """The next batch: tensors with B rows."""
        self.step += 1
        return self.batch(self.step - 1)

    next = __next__

    def batch(self, step: int) -> Batch:
        """The batch of a step."""
        raise NotImplementedError

    @property
    def together(self) -> int:
        """Rows of a step, of all ranks."""
        return self.batch_size * self.world_size

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: plain numbers, JSON-able."""
        return {"seed": self.seed, "step": self.step}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where `state_dict` was taken; the next batch is the one that would have come."""
        self.seed, self.step = int(state["seed"]), int(state["step"])


def philox(seed: int, stream: int, number: int) -> np.random.Generator:
    """The random numbers of one purpose (`stream`: 0, 1 of texts; 2 to 4 of examples; 5 to 9 of words) and `number`."""
    return np.random.Generator(np.random.Philox(key=seed % (1 << 64), counter=[0, number, stream, 0]))


def check_batch_size(batch_size: int) -> None:
    """Raise a `UsageError` for a batch size below 1."""
    if batch_size < 1:
        raise UsageError(f"batch_size={batch_size} is less than 1; try batch_size=1")


class TokenBatches(SeededBatches):
    """Training windows of a text: (inputs, targets), each (B, T).

    Args:
        view: the split to draw from.
        documents: add which document each input belongs to, (B, T): (inputs, documents, targets).
        order: `epochs`: every window once, in random order, then all again, cut at other places and in another order.
            `random`: windows that begin anywhere, drawn at each step. `consecutive`: one after the other.
        others: as in `SeededBatches`.

    Raises:
        UsageError: the split is not longer than block_size, or a number makes no sense.
    """

    def __init__(
        self,
        view: TokenView,
        *,
        block_size: int,
        batch_size: int,
        seed: int,
        order: str = "epochs",
        documents: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        check_length(view, block_size)
        super().__init__(batch_size=batch_size, seed=seed, rank=rank, world_size=world_size)
        if order not in ORDERS:
            raise UsageError(f"data.order={order!r} is unknown; {did_you_mean(order, ORDERS)}")
        self.view, self.block_size, self.order, self.documents = view, block_size, order, documents
        self._epoch: tuple[tuple[int, int], np.ndarray] | None = None  # (seed, number) of an epoch and its windows

    def batch(self, step: int) -> Batch:
        return window_batch(self.view, self._starts(step), self.block_size, self.documents)

    def _starts(self, step: int) -> np.ndarray:
        """Where our B windows of this step begin."""
        B, together = self.batch_size, self.together
        ours = slice(self.rank * B, (self.rank + 1) * B)
        if self.order == "random":
            starts = philox(self.seed, 0, step).integers(0, len(self.view) - self.block_size, size=together)
            return starts[ours]
        numbers = (step * together + np.arange(together))[ours]  # of the windows, counted from the start of the run
        if self.order == "consecutive":
            return numbers % ((len(self.view) - 1) // self.block_size) * self.block_size
        epochs, places = np.divmod(numbers, self.windows_an_epoch)
        return np.concatenate([self._windows(int(e))[places[epochs == e]] for e in np.unique(epochs)])

    @property
    def windows_an_epoch(self) -> int:
        """How many windows fit, wherever the first one begins: one less than would fit, so that every epoch
        can cut the text at other places."""
        return max(1, (len(self.view) - 1) // self.block_size - 1)

    def _windows(self, epoch: int) -> np.ndarray:
        """Where the windows of an epoch begin, in its order."""
        if self._epoch is None or self._epoch[0] != (self.seed, epoch):
            random, T, n = philox(self.seed, 1, epoch), self.block_size, self.windows_an_epoch
            first = random.integers(0, min(T, len(self.view) - n * T))
            self._epoch = (self.seed, epoch), first + T * random.permutation(n)
        return self._epoch[1]

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "order": self.order}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        super().load_state_dict(state)
        self.order = str(state["order"])


def windows(view: TokenView, block_size: int, batch_size: int, documents: bool = False) -> Iterator[Batch]:
    """Every target of a split exactly once: windows without overlap, in order.

    N tokens hold N - 1 predictions (nothing predicts the first). They come as batches (B, T), a last one with fewer
    rows and, if N - 1 is no multiple of T, one shorter window (1, (N - 1) mod T): weigh batches by their size.

    Raises:
        UsageError: fewer than two tokens.
    """
    if len(view) < 2:
        raise UsageError(f"the {view.name} split holds {len(view)} tokens, and a prediction needs 2; give more text")
    T = block_size
    number, rest = divmod(len(view) - 1, T)
    for first in range(0, number, batch_size):
        starts = np.arange(first, min(first + batch_size, number)) * T
        yield window_batch(view, starts, T, documents)
    if rest:
        yield window_batch(view, np.array([number * T]), rest, documents)


def fixed_batches(
    view: TokenView, block_size: int, batch_size: int, n: int, seed: int, documents: bool = False
) -> list[Batch]:
    """The same n random batches at every call: a quick evaluation that does not vary by chance.

    Raises:
        UsageError: as `TokenBatches`.
    """
    batches = TokenBatches(
        view, block_size=block_size, batch_size=batch_size, seed=seed, order="random", documents=documents
    )
    return [next(batches) for _ in range(n)]


def window_batch(view: TokenView, starts: np.ndarray, block_size: int, documents: bool = False) -> Batch:
    """(inputs, targets), each (B, T), of the windows that begin at `starts`, (B,).

    documents: (inputs, documents, targets): documents counted from 0 in each window.
    """
    tokens = view.gather(starts, block_size + 1)  # (B, T + 1), the store's own type
    inputs = torch.from_numpy(tokens[:, :-1].astype(np.int64))  # (B, T)
    targets = torch.from_numpy(tokens[:, 1:].astype(np.int64))  # (B, T)
    if not documents:
        return inputs, targets
    places = starts[:, None] + np.arange(block_size)  # (B, T)
    numbers = np.searchsorted(view.document_starts, places.astype(np.uint64), side="right")
    return inputs, torch.from_numpy((numbers - numbers[:, :1]).astype(np.int64)), targets


def check_length(view: TokenView, block_size: int) -> None:
    """Raise a `UsageError` unless a window of block_size + 1 tokens fits into the split."""
    if block_size < 1:
        raise UsageError(f"block_size={block_size} is less than 1; try block_size=64")
    if len(view) <= block_size:
        advice = f"try block_size={len(view) // 2} or give more text" if len(view) >= 4 else "give more text"
        raise UsageError(
            f"block_size={block_size} is longer than the text: the {view.name} split holds {len(view):,} tokens, "
            f"and a window needs block_size + 1; {advice}"
        )
