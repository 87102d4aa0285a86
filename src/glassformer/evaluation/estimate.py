"""A mean loss with the number of targets and a 95 % interval, and the losses of single windows that it is made of."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassformer.errors import RunError
from glassformer.files import atomic_file


@dataclass(frozen=True)
class LossEstimate:
    """A mean loss and how sure it is.

    loss: mean over targets, nats. n: targets. interval: half the width of the 95 % interval, from the spread between
    windows (neighbouring tokens are not independent, windows nearly are); infinite for a single window, which shows no
    spread. bits_per_byte: the same loss spread over the UTF-8 bytes of the text, which makes tokenizers comparable;
    None when the bytes are unknown. accuracy: the share of targets that the model held the most likely; None where
    nobody counted.
    """

    loss: float
    n: int
    interval: float
    bits_per_byte: float | None
    accuracy: float | None = None

    @property
    def perplexity(self) -> float:
        """exp(loss): between how many tokens the model is torn on average."""
        return math.exp(min(self.loss, 700.0))

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> LossEstimate:
        """What `to_dict` told, or a file that holds it: an interval of null is an infinite one."""
        fields = {key: told[key] for key in ("loss", "n", "interval", "bits_per_byte", "accuracy") if key in told}
        return cls(**{**fields, "interval": math.inf if told["interval"] is None else told["interval"]})

    def to_dict(self) -> dict[str, Any]:
        known = self.interval if math.isfinite(self.interval) else None  # JSON has no infinity
        told = {**asdict(self), "interval": known, "perplexity": self.perplexity}
        return {key: value for key, value in told.items() if key != "accuracy" or value is not None}


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
