"""Loss on held-out text: nats a token, bits a byte, perplexity, with the number of targets and a 95 % interval."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from glassformer.errors import DataError, RunError
from glassformer.files import atomic_file


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


@dataclass(frozen=True)
class WindowLosses:
    """What each window of held-out text cost: enough to estimate the loss, and to compare two models window by window.

    sums: (N,) float64, the sum of a window's losses in nats. counts: (N,) int64, its targets. targets: SHA-256 of all
    targets in their order; equal for two models exactly if they were asked for the same tokens, however cut.
    """

    sums: Tensor
    counts: Tensor
    targets: str

    def estimate(self, bytes_per_token: float | None = None) -> LossEstimate:
        """Mean and 95 % interval. bytes_per_token: of the split's text, for bits per byte."""
        n = int(self.counts.sum())
        mean = float(self.sums.sum()) / n
        bits = mean / math.log(2) / bytes_per_token if bytes_per_token else None
        return LossEstimate(mean, n, 1.96 * standard_error(self.sums, self.counts), bits)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as safetensors, whole or not at all (8 + 8 bytes a window)."""
        tensors = {"sums": self.sums, "counts": self.counts}
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata={"targets": self.targets})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WindowLosses:
        """Read them back.

        Raises:
            RunError: the file is missing or damaged.
        """
        try:
            with safe_open(path, framework="pt") as file:
                sums, counts = file.get_tensor("sums"), file.get_tensor("counts")
                targets = (file.metadata() or {})["targets"]
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{path}: no window losses can be read ({error}); evaluate the run again") from None
        return cls(sums, counts, targets)


def standard_error(sums: Tensor, counts: Tensor) -> float:
    """Standard error of sum(sums) / sum(counts), from the spread of what each window adds beyond its share; infinite
    for a single window. A ratio estimator (Cochran 1977, "Sampling Techniques", section 6.3): windows may be of
    different length."""
    windows, n = len(sums), float(counts.sum())
    if windows < 2:
        return math.inf
    residual = sums - sums.sum() / n * counts
    return math.sqrt(float((residual**2).sum()) / (windows - 1) * windows) / n


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
    return window_losses(model, batches).estimate(bytes_per_token)


@torch.inference_mode()
def window_losses(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> WindowLosses:
    """The same, with the losses of each window kept; see `evaluate_loss`."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    sums: list[Tensor] = []
    sizes: list[int] = []
    asked = hashlib.sha256()
    try:
        for inputs_BT, targets_BT in batches:
            B, T = targets_BT.shape
            logits_BTV = model(inputs_BT.to(device))
            losses = F.cross_entropy(
                logits_BTV.flatten(0, 1).float(), targets_BT.to(device).flatten(), reduction="none"
            ).view(B, T)
            sums.append(losses.sum(dim=1, dtype=torch.float64).cpu())  # one number a window
            sizes += [T] * B
            asked.update(targets_BT.cpu().numpy().astype("<i8").tobytes())
    finally:
        model.train(was_training)
    if not sums:
        raise DataError("no batches to evaluate on: the held-out text is shorter than one window; give more text")
    return WindowLosses(torch.cat(sums), torch.tensor(sizes), asked.hexdigest())
