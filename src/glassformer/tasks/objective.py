"""What every objective can do, and the two things they share: a report row by row, and rows of unequal length.

    examples ──collate──► batch ─┬─loss──► (sum, count)                      what is trained, smoothing included
                                 └─rows──► sum, count, hits of each example  what is reported: plain cross-entropy

A sum and its count rather than a mean: whoever adds up several batches (micro-batches, ranks, an evaluation) divides
once, and how the examples were cut changes nothing. B examples, T time, V vocabulary or classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, ValidationError
from torch import Tensor, nn

from glassformer.errors import DataError, UsageError
from glassformer.models.mistakes import first_mistake
from glassformer.tasks.cross_entropy import IGNORED

if TYPE_CHECKING:
    from typing_extensions import Self

Batch = tuple[Tensor, ...]


class RowLosses(NamedTuple):
    """What each example of a batch cost, in nats without smoothing, how many targets it has, how many were hit.

    A target is hit when the model holds it the most likely of all. sums (B,) float64, counts and correct (B,) int64.
    """

    sums_B: Tensor
    counts_B: Tensor
    correct_B: Tensor


class ObjectiveSettings(BaseModel):
    """The keys of a recipe's [task] that belong to one kind; without fields there are none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def make(cls, **fields: Any) -> Self:
        """Build them; every mistake is one `UsageError` of one line."""
        try:
            return cls(**fields)
        except ValidationError as error:
            raise UsageError(first_mistake(error, cls, prefix="task.")) from None


class Objective(Protocol):
    """What is asked of a model. The last tensor of a batch holds the targets; where it is -100 nothing is asked.

    asks: one of the words in `answers` of the models that can be asked (`models.kinds_that_answer`).
    data: what it learns from. `text` (a stream of tokens, cut into windows), `words` (the same, each with its
        neighbours), or examples: `texts`, `pairs`, `labelled` texts, `tagged` words.
    """

    asks: ClassVar[str]
    data: ClassVar[str]
    Settings: ClassVar[type[ObjectiveSettings]]
    by_chance: ClassVar[bool]  # whether `collate` draws anything
    # a rise of the loss smaller than this is no divergence, in the unit of the loss; None, or left out: the monitor
    # goes by what the run has gained so far
    alarm: ClassVar[float | None]

    def collate(self, examples: Sequence[Any], random: Any) -> Batch:
        """Examples -> tensors with one row an example. All chance comes from `random`, a numpy `Generator`; it may be
        None where nothing is drawn."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of what is trained, number of targets, further metrics)."""

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What is reported."""

    def count(self, batch: Batch) -> int:
        """The number of targets. On the CPU's copy of a batch it costs nothing; on a GPU's it waits."""


def of_class(table: Mapping[type, Any], kind: type, otherwise: Any) -> Any:
    """What a table holds for a class, or for the nearest class that it descends from."""
    return next((table[parent] for parent in kind.__mro__ if parent in table), otherwise)


def summed_cross_entropy(logits: Tensor, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Sum over the targets that count, logits (..., V) and targets (...); fp32 at least (halves are too coarse to add
    up), doubles stay doubles.

    label_smoothing: this share of each target is spread over all V (Szegedy et al. 2015,
    https://arxiv.org/abs/1512.00567, section 7).
    """
    full = torch.promote_types(logits.dtype, torch.float32)
    return F.cross_entropy(
        logits.flatten(0, -2).to(full),
        targets.flatten(),
        reduction="sum",
        ignore_index=IGNORED,
        label_smoothing=label_smoothing,
    )


def number_of(targets: Tensor) -> int | Tensor:
    """How many targets count. An int on the CPU. On a GPU, where to know it would mean to wait for all work in flight,
    and inside `torch.compile`, a 0-dim tensor."""
    count = (targets != IGNORED).sum()
    known = targets.device.type == "cpu" and not torch.compiler.is_compiling()
    return int(count) if known else count


def row_losses(logits: Tensor, targets: Tensor) -> RowLosses:
    """Logits (B, T, V) and targets (B, T), or (B, V) and (B,), -> what each row cost."""
    return rows_of(*place_losses(logits.flatten(0, -2), targets.flatten()), targets)


def place_losses(logits_NV: Tensor, targets_N: Tensor) -> tuple[Tensor, Tensor]:
    """(losses, hits) of every place by itself, each (N,): 0 and False where nothing is asked."""
    full = torch.promote_types(logits_NV.dtype, torch.float32)
    losses_N = F.cross_entropy(logits_NV.to(full), targets_N, reduction="none", ignore_index=IGNORED)
    return losses_N, logits_NV.argmax(dim=1) == targets_N  # no class is called -100


def rows_of(losses: Tensor, hits: Tensor, targets: Tensor) -> RowLosses:
    """Losses and hits of every place of `targets` (B, T) or (B,), in order, added up row by row."""
    B = len(targets)
    return RowLosses(
        losses.view(B, -1).sum(dim=1, dtype=torch.float64),
        (targets != IGNORED).view(B, -1).sum(dim=1),
        hits.view(B, -1).sum(dim=1),
    )


def padded(sequences: Sequence[Sequence[int]], fill: int) -> tuple[Tensor, Tensor]:
    """Sequences of any lengths -> (ids (B, T) filled up on the right, lengths (B,)), both int64. T: the longest."""
    lengths = [len(ids) for ids in sequences]
    ids_BT = torch.full((len(sequences), max(lengths, default=0)), fill)
    for row, ids in enumerate(sequences):
        ids_BT[row, : len(ids)] = torch.as_tensor(np.asarray(ids, dtype=np.int64))
    return ids_BT, torch.tensor(lengths, dtype=torch.int64)


def check_not_empty(sequences: Sequence[Sequence[int]], what: str) -> None:
    """Raise a `DataError` when there is no example, or one without a token: attention would have nothing to look at."""
    if not len(sequences):
        raise DataError("a batch of 0 examples teaches nothing; give at least one")
    for number, ids in enumerate(sequences):
        if not len(ids):
            raise DataError(f"example {number} of a batch has an empty {what}; it needs 1 token, so leave it out")
