"""Evaluate a model on held-out rows (windows or examples): the loss of each, and the share of right answers."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glassformer.data.batches import IGNORED
from glassformer.errors import DataError
from glassformer.evaluation.estimate import WindowLosses


class RowLosses(NamedTuple):
    """Of each row of a batch: loss in nats without smoothing (B,) float64, number of targets and of hits (B,) int64.

    A target is hit when the model gives it the highest probability of all.
    """

    sums_B: Tensor
    counts_B: Tensor
    correct_B: Tensor


@torch.inference_mode()
def evaluate_rows(
    model: nn.Module, rows: Callable[[Any, tuple[Tensor, ...]], RowLosses], batches: Iterable[tuple[Tensor, ...]]
) -> tuple[WindowLosses, float]:
    """-> (plain cross-entropy of each row, share of targets that the model gives the highest probability).

    In eval mode; the model's mode is restored. The losses of two models on the same targets can be compared row by row
    (`compare_losses`); tasks that sample their targets need batches made with the same seed.

    Args:
        rows: a task's `rows`. batches: the last tensor of each holds the targets.

    Raises:
        DataError: there are no batches, or they hold no targets.
    """
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device  # counted n-grams have no weights
    was_training = model.training
    model.eval()
    losses: list[RowLosses] = []
    digest = hashlib.sha256()
    try:
        for batch in batches:
            losses.append(rows(model, tuple(part.to(device) for part in batch)))
            targets = batch[-1].cpu()
            digest.update(targets[targets != IGNORED].numpy().astype("<i8").tobytes())
    finally:
        model.train(was_training)
    if not losses:
        raise DataError("no batches to evaluate on: the held-out text is shorter than one window; give more text")
    sums, counts, correct = (torch.cat(parts).cpu() for parts in zip(*losses, strict=True))
    if not counts.sum():
        raise DataError(f"the {len(counts)} held-out examples hold no targets; give longer ones")
    return WindowLosses(sums, counts, digest.hexdigest()), float(correct.sum()) / float(counts.sum())
