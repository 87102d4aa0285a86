"""How text is read by an evaluation: in which windows, how many of them, and how many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import torch

from glassformer.data import TokenView, windows
from glassformer.data.batches import window_batch
from glassformer.models import Decoder, ModelConfig
from glassformer.recipes.schema import TrainingSection

EVAL_WINDOW = 256  # evaluation reads the split in consecutive windows of at most this, every target once
EVAL_TOKENS = {"cpu": 4_096, "cuda": 65_536}  # at once; a CPU's cache holds no more
TRAIN_SHARE = 0.02  # of the time of training, what a look at the training split may cost
STEP_COST = 3  # forward passes: a backward pass costs two
EVAL_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}  # at once, 4 bytes each, twice: for large vocabularies


def windows_at_once(config: ModelConfig, device: str, T: int) -> int:
    """How many windows of T tokens an evaluation puts through the model together."""
    kind = device.split(":")[0]
    return max(1, min(EVAL_TOKENS[kind], EVAL_LOGITS[kind] // config.vocab_size) // T)


def whole_split(model: Decoder, view: TokenView) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """All of a split in windows."""
    T = min(model.config.block_size, EVAL_WINDOW)
    return windows(view, block_size=T, batch_size=windows_at_once(model.config, _device(model), T))


def spread_windows(model: Decoder, view: TokenView, T: int, n: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """`n` windows of T tokens, evenly over a split, the same at each call; no more than there are without overlap."""
    n = max(1, min(n, (len(view) - 1) // T))
    starts_N = np.linspace(0, len(view) - 1 - T, n).astype(np.int64)
    rows = windows_at_once(model.config, _device(model), T)
    for first in range(0, n, rows):
        yield window_batch(view, starts_N[first : first + rows], T)


def training_rows(t: TrainingSection) -> int:
    """How many sequences of the training split an evaluation reads at most: what costs `TRAIN_SHARE` of the steps
    between two evaluations; one batch at least."""
    assert isinstance(t.batch_size, int)
    steps = t.eval_every or t.steps or 1
    return t.batch_size * max(1, int(TRAIN_SHARE * STEP_COST * steps))


def few_at_once(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], config: ModelConfig, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same windows, as many at once as an evaluation takes."""
    for inputs_BT, targets_BT in batches:
        rows = windows_at_once(config, device, inputs_BT.shape[1])
        yield from zip(inputs_BT.split(rows), targets_BT.split(rows), strict=True)


def _device(model: Decoder) -> str:
    return next(model.parameters()).device.type
