"""Any objective on held-out examples or windows: what each cost, and how often the model's first choice was right."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from glassformer.errors import DataError
from glassformer.evaluation.estimate import WindowLosses
from glassformer.tasks import Objective, RowLosses
from glassformer.tasks.cross_entropy import IGNORED


@torch.inference_mode()
def evaluate_rows(
    model: nn.Module, objective: Objective, batches: Iterable[tuple[Tensor, ...]]
) -> tuple[WindowLosses, float]:
    """-> (plain cross-entropy of each example, share of targets that the model held the most likely).

    In eval mode; the model's mode is put back afterwards. Every example of `batches` counts once. The losses of two
    models that were asked for the same targets can be compared example by example (`compare_losses`); objectives that
    draw what they ask for need batches made with the same seed.

    Args:
        batches: what `objective.collate` makes; the last tensor holds the targets.

    Raises:
        DataError: there are no batches, or nothing is asked in any of them.
    """
    weights = next(model.parameters(), None)
    device = torch.device("cpu") if weights is None else weights.device  # counted n-grams have no weights
    was_training = model.training
    model.eval()
    told: list[RowLosses] = []
    asked = hashlib.sha256()
    try:
        for batch in batches:
            told.append(objective.rows(model, tuple(part.to(device) for part in batch)))
            targets = batch[-1].cpu()
            asked.update(targets[targets != IGNORED].numpy().astype("<i8").tobytes())
    finally:
        model.train(was_training)
    if not told:
        raise DataError("no batches to evaluate on: the held-out text is shorter than one window; give more text")
    sums, counts, correct = (torch.cat(parts).cpu() for parts in zip(*told, strict=True))
    if not counts.sum():
        raise DataError(f"the {len(counts)} held-out examples ask for nothing; give longer ones")
    return WindowLosses(sums, counts, asked.hexdigest()), float(correct.sum()) / float(counts.sum())
