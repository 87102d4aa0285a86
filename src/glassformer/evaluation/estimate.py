"""A mean loss with the number of targets and a 95 % interval, and the losses of single windows that it is made of."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from glassformer.errors import RunError
from glassformer.files import atomic_file


def finite(interval: float) -> float | None:
    """For JSON, which has no infinity: None where nothing is known."""
    return interval if math.isfinite(interval) else None


@dataclass(frozen=True)
class LossEstimate:
    """A mean loss and how sure it is.

    loss: mean over targets, nats. n: targets. interval: half the width of the 95 % interval, from the spread between
    windows (neighbouring tokens are not independent, windows nearly are); infinite for a single window. bits_per_byte:
    the loss per UTF-8 byte of the text, which makes tokenizers comparable; None when the bytes are unknown. accuracy:
    the share of targets that the model gave the highest probability; None where it was not counted.
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

    def to_dict(self) -> dict[str, Any]:
        row = {**asdict(self), "interval": finite(self.interval), "perplexity": self.perplexity}
        return {key: value for key, value in row.items() if key != "accuracy" or value is not None}


class Metric(NamedTuple):
    """A number that was measured: its value, the number of cases, and half the width of its 95 % interval (infinite
    where nothing is known)."""

    value: float
    n: int
    interval: float = math.inf


@dataclass(frozen=True)
class Metrics:
    """What an evaluation measured, by name. windows: the losses it is made of, where there are some."""

    values: dict[str, Metric]
    windows: WindowLosses | None = None

    def __getitem__(self, name: str) -> Metric:
        return self.values[name]

    def loss_estimate(self) -> LossEstimate | None:
        """The loss with what belongs to it; None where no loss was measured, but a reward."""
        if (loss := self.values.get("loss")) is None:
            return None
        others = {key: m.value for key, m in self.values.items() if key in ("bits_per_byte", "accuracy")}
        return LossEstimate(loss.value, loss.n, loss.interval, **{"bits_per_byte": None, **others})

    def to_dict(self) -> dict[str, list[Any]]:
        """Plain numbers, JSON-able: value, n, and interval (None where infinite) by name."""
        return {key: [m.value, m.n, finite(m.interval)] for key, m in self.values.items()}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Metrics:
        """The inverse of `to_dict`, without the windows."""
        return cls({key: Metric(v, n, math.inf if i is None else i) for key, (v, n, i) in values.items()})


@dataclass(frozen=True)
class WindowLosses:
    """The loss of each window of held-out text: enough to estimate the mean and to compare models in pairs.

    sums: (N,) float64, the sum of a window's losses in nats. counts: (N,) int64, its targets. targets: SHA-256 of all
    targets in order; two models have the same one exactly if their targets were the same, however cut.
    """

    sums: Tensor
    counts: Tensor
    targets: str

    def estimate(self, bytes_per_token: float | None = None) -> LossEstimate:
        """Mean and 95 % interval; see `metrics`."""
        estimate = self.metrics(bytes_per_token).loss_estimate()
        assert estimate is not None
        return estimate

    def metrics(self, bytes_per_token: float | None = None, accuracy: float | None = None) -> Metrics:
        """The loss, with bits per byte and accuracy where they are known.

        bytes_per_token: UTF-8 bytes of the split's text divided by its tokens.
        """
        n = int(self.counts.sum())
        mean = float(self.sums.sum()) / n
        interval = 1.96 * standard_error(self.sums, self.counts)
        values = {"loss": Metric(mean, n, interval)}
        if bytes_per_token:
            scale = 1 / math.log(2) / bytes_per_token
            values["bits_per_byte"] = Metric(mean / math.log(2) / bytes_per_token, n, interval * scale)
        if accuracy is not None:
            values["accuracy"] = Metric(accuracy, n, share_interval(accuracy, n))
        return Metrics(values, self)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write them as safetensors, 16 bytes a window."""
        tensors = {"sums": self.sums, "counts": self.counts}
        with atomic_file(path) as temporary:
            save_file(tensors, temporary, metadata={"targets": self.targets})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> WindowLosses:
        """Read them back; a `RunError` if the file is missing or damaged."""
        try:
            with safe_open(path, framework="pt") as file:
                sums, counts = file.get_tensor("sums"), file.get_tensor("counts")
                targets = (file.metadata() or {})["targets"]
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{path}: no window losses can be read ({error}); evaluate the run again") from None
        return cls(sums, counts, targets)


def standard_error(sums: Tensor, counts: Tensor) -> float:
    """Standard error of sum(sums) / sum(counts), from the spread of what each window adds beyond its share (the ratio
    estimator of Cochran 1977, "Sampling Techniques", section 6.3); infinite for a single window."""
    windows, n = len(sums), float(counts.sum())
    if windows < 2:
        return math.inf
    residual = sums - sums.sum() / n * counts
    return math.sqrt(float((residual**2).sum()) / (windows - 1) * windows) / n


def share_interval(share: float, n: int) -> float:
    """Half the width of the 95 % interval of a share of n independent cases, by the normal approximation."""
    return 1.96 * math.sqrt(max(0.0, share * (1 - share)) / n) if n else math.inf


def wilson_interval(hits: int, n: int) -> tuple[float, float]:
    """95 % interval of a share, hits of n independent cases (Wilson 1927); informative even for 0 hits.

    >>> [round(end, 3) for end in wilson_interval(0, 100)]
    [0.0, 0.037]
    """
    from scipy.stats import binomtest

    interval = binomtest(hits, n).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


class Share(NamedTuple):
    """A share of n cases with both ends of its 95 % interval (Wilson)."""

    value: float
    n: int
    low: float
    high: float

    @classmethod
    def of(cls, hits: Sequence[bool]) -> Share:
        """The share of True among one case or more."""
        return cls(sum(hits) / len(hits), len(hits), *wilson_interval(sum(hits), len(hits)))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f}, n {self.n:,})"
