"""How an evaluation reads a text: in which windows, how many of them, and how many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from glassformer.data import TokenView, windows
from glassformer.data.batches import Batch, window_batch

EVAL_WINDOW = 256  # evaluation reads the split in consecutive windows of at most this, every target once
EVAL_TOKENS = {"cpu": 4_096, "cuda": 65_536}  # at once; a CPU's cache holds no more
EVAL_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}  # at once, 4 bytes each, twice: for large vocabularies


def windows_at_once(config: Any, device: str, T: int) -> int:
    """How many windows of T tokens an evaluation puts through the model together."""
    kind = device.split(":")[0]
    return max(1, min(EVAL_TOKENS[kind], EVAL_LOGITS[kind] // config.vocab_size) // T)


def whole_split(model: Any, view: TokenView, documents: bool = False) -> Iterator[Batch]:
    """All of a split in windows."""
    T = min(model.config.block_size, EVAL_WINDOW)
    rows = windows_at_once(model.config, _device(model), T)
    return windows(view, block_size=T, batch_size=rows, documents=documents)


def spread_windows(model: Any, view: TokenView, T: int, n: int, documents: bool = False) -> Iterator[Batch]:
    """`n` windows of T tokens, evenly over a split, the same at each call; no more than there are without overlap."""
    n = max(1, min(n, (len(view) - 1) // T))
    starts_N = np.linspace(0, len(view) - 1 - T, n).astype(np.int64)
    rows = windows_at_once(model.config, _device(model), T)
    for first in range(0, n, rows):
        yield window_batch(view, starts_N[first : first + rows], T, documents)


def few_at_once(model: Any, batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same windows, as many at once as an evaluation takes."""
    for batch in batches:
        rows = windows_at_once(model.config, _device(model), batch[0].shape[1])
        yield from zip(*(part.split(rows) for part in batch), strict=True)


def _device(model: Any) -> str:
    return next(model.parameters()).device.type
