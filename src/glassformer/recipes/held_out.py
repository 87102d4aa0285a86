"""How held-out text is read: in which windows, and how many at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from glassformer.data import TokenStore, windows
from glassformer.models import Decoder, ModelConfig

EVAL_WINDOW = 256  # evaluation reads the split in consecutive windows of at most this, every target once
EVAL_TOKENS = {"cpu": 4_096, "cuda": 65_536}  # at once; a CPU's cache holds no more
EVAL_LOGITS = {"cpu": 1 << 26, "cuda": 1 << 28}  # at once, 4 bytes each, twice: for large vocabularies


def windows_at_once(config: ModelConfig, device: str, T: int) -> int:
    """How many windows of T tokens an evaluation puts through the model together."""
    kind = device.split(":")[0]
    return max(1, min(EVAL_TOKENS[kind], EVAL_LOGITS[kind] // config.vocab_size) // T)


def whole_split(model: Decoder, store: TokenStore) -> tuple[Iterator[tuple[torch.Tensor, torch.Tensor]], float]:
    """The whole validation split in windows, and its bytes per token."""
    held_out = store.split("validation")
    T = min(model.config.block_size, EVAL_WINDOW)
    batch_size = windows_at_once(model.config, next(model.parameters()).device.type, T)
    return windows(held_out, block_size=T, batch_size=batch_size), held_out.bytes / len(held_out)


def few_at_once(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]], config: ModelConfig, device: str
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The same windows, as many at once as an evaluation takes."""
    for inputs_BT, targets_BT in batches:
        rows = windows_at_once(config, device, inputs_BT.shape[1])
        yield from zip(inputs_BT.split(rows), targets_BT.split(rows), strict=True)
