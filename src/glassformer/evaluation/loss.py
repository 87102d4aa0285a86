"""Loss on held-out text: nats a token, bits a byte, perplexity, with the number of targets and a 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from glassformer.errors import DataError


@dataclass(frozen=True)
class LossEstimate:
    """A mean loss and how sure it is.

    loss: mean over targets, nats. n: targets. interval: half the width of the 95 % interval, from the spread between
    windows (neighbouring tokens are not independent, windows nearly are); infinite for a single window, which shows no
    spread. bits_per_byte: the same loss spread over the UTF-8 bytes of the text, which makes tokenizers comparable;
    None when the bytes are unknown.
    """

    loss: float
    n: int
    interval: float
    bits_per_byte: float | None

    @property
    def perplexity(self) -> float:
        """exp(loss): between how many tokens the model is torn on average."""
        return math.exp(min(self.loss, 700.0))

    def to_dict(self) -> dict[str, Any]:
        known = self.interval if math.isfinite(self.interval) else None  # JSON has no infinity
        return {**asdict(self), "interval": known, "perplexity": self.perplexity}


@torch.inference_mode()
def evaluate_loss(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, bytes_per_token: float | None = None
) -> LossEstimate:
    """Mean next-token loss over batches of (inputs, targets), in eval mode; the model's mode is put back afterwards.

    Args:
        batches: each (B, T) ids twice. Over `data.windows(...)` every target of a split counts exactly once.
        bytes_per_token: UTF-8 bytes of the split divided by its tokens, for bits per byte.

    Raises:
        DataError: there are no batches, so there is no mean.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums: list[Tensor] = []
    sizes: list[int] = []
    try:
        for inputs_BT, targets_BT in batches:
            B, T = targets_BT.shape
            logits_BTV = model(inputs_BT.to(device))
            losses = F.cross_entropy(
                logits_BTV.flatten(0, 1).float(), targets_BT.to(device).flatten(), reduction="none"
            ).view(B, T)
            sums.append(losses.sum(dim=1, dtype=torch.float64).cpu())  # one number a window
            sizes += [T] * B
    finally:
        model.train(was_training)
    if not sums:
        raise DataError("no batches to evaluate on: the held-out text is shorter than one window; give more text")
    per_window, n_window = torch.cat(sums), torch.tensor(sizes, dtype=torch.float64)
    n = int(n_window.sum())
    mean = float(per_window.sum()) / n
    # ratio estimator: the spread of what each window adds beyond its share
    interval = math.inf
    if len(sizes) > 1:
        spread = float(((per_window - mean * n_window) ** 2).sum()) / (len(sizes) - 1)
        interval = 1.96 * math.sqrt(spread * len(sizes)) / n
    return LossEstimate(mean, n, interval, mean / math.log(2) / bytes_per_token if bytes_per_token else None)
