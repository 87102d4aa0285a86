"""What images cost without a Transformer, and whether a classifier sees in an image what was asked for.

N images, D pixels, L grey levels; an image is (D,) levels in raster order. Costs are -log p in nats, summed over the
pixels of each image, (N,): `WindowLosses(costs, D for each)` makes bits per dimension with an interval of them.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from glassformer.errors import MissingExtraError
from glassformer.evaluation.estimate import Metric, Share, WindowLosses

Split = tuple[np.ndarray, np.ndarray]
"""Levels (N, D) and the number of the class (N,)."""
UNIFORM = 0.01
"""Share of every prediction of the logistic regressions that is spread over all levels: some never occur at a pixel."""
STRENGTHS = (0.01, 0.1, 1.0)
"""Of their weights, of which the one is taken that is best on validation images, at every 16th pixel."""


def previous_pixel_costs(train_ND: np.ndarray, test_ND: np.ndarray, L: int) -> np.ndarray:
    """A table: how often each level follows the level of the pixel before it, one added to every count. The first pixel
    follows level 0."""
    counts_LL = np.ones((L, L))
    np.add.at(counts_LL, (_before(train_ND).ravel(), train_ND.ravel()), 1)
    p_LL = counts_LL / counts_LL.sum(axis=1, keepdims=True)
    return -np.log(p_LL[_before(test_ND), test_ND]).sum(axis=1)


def logistic_costs(train: Split, validation: Split, test: Split, L: int) -> np.ndarray:
    """For each pixel a multinomial logistic regression on all pixels before it and on the class.

    Raises:
        MissingExtraError: without scikit-learn.
    """
    n_classes, D = int(train[1].max()) + 1, train[0].shape[1]
    (seen, pixels), (held_out, its), (asked, answers) = (
        (_features(levels, classes, L, n_classes), levels) for levels, classes in (train, validation, test)
    )

    def costs(place: int, strength: float, features: np.ndarray, levels_ND: np.ndarray) -> np.ndarray:
        p_NL = _predicted(seen[:, : n_classes + place], pixels[:, place], features[:, : n_classes + place], L, strength)
        return -np.log(p_NL[np.arange(len(p_NL)), levels_ND[:, place]])  # type: ignore[no-any-return]

    some = range(0, D, max(1, D // 16))
    best = min(STRENGTHS, key=lambda strength: sum(costs(place, strength, held_out, its).sum() for place in some))
    return np.sum([costs(place, best, asked, answers) for place in range(D)], axis=0)  # type: ignore[no-any-return]


def _features(levels_ND: np.ndarray, classes_N: np.ndarray, L: int, n_classes: int) -> np.ndarray:
    """The class as one of `n_classes` indicators, then the pixels, 0 to 1."""
    return np.concatenate([np.eye(n_classes)[classes_N], levels_ND / (L - 1)], axis=1)


def _predicted(seen: np.ndarray, levels_N: np.ndarray, asked: np.ndarray, L: int, strength: float) -> np.ndarray:
    """(N, L) probabilities of the levels of one pixel."""
    p_NL = np.full((len(asked), L), UNIFORM / L)
    present = np.unique(levels_N)
    if len(present) == 1:
        p_NL[:, present[0]] += 1 - UNIFORM
        return p_NL
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # 200 iterations may not be all
        fitted = _sklearn("linear_model").LogisticRegression(C=strength, max_iter=200).fit(seen, levels_N)
    p_NL[:, fitted.classes_] += (1 - UNIFORM) * fitted.predict_proba(asked)
    return p_NL


def read_by_svm(levels_ND: np.ndarray, classes_N: np.ndarray) -> Any:
    """A support vector machine that reads images: an object with `predict(levels_ND) -> classes_N`.

    Raises:
        MissingExtraError: without scikit-learn.
    """
    return _sklearn("svm").SVC(C=10.0).fit(levels_ND, classes_N)


def _before(levels_ND: np.ndarray) -> np.ndarray:
    return np.pad(levels_ND, ((0, 0), (1, 0)))[:, :-1]


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ImportError:
        raise MissingExtraError("comparing images with scikit-learn", "align") from None


def bits_per_dimension(costs_N: np.ndarray, D: int) -> Metric:
    """Bits per dimension of images whose pixels cost so many nats together."""
    windows = WindowLosses(torch.from_numpy(costs_N).double(), torch.full((len(costs_N),), D), "")
    loss = windows.metrics()["loss"]
    return Metric(loss.value / math.log(2), loss.n, loss.interval / math.log(2))


@dataclass(frozen=True)
class ImageScores:
    """bits: per dimension, of the model and of baselines, on n images. bayes: how often the class, or among ten
    captions the one, that makes an image most probable is its own. agreement: by temperature, the share of written
    images in which a support vector machine reads the class that was asked for. reader: its own accuracy on those n
    images."""

    n: int
    bits: dict[str, Metric]
    bayes: Share | None
    agreement: dict[float, Share] = field(default_factory=dict)
    reader: Share | None = None

    def to_dict(self) -> dict[str, Any]:
        shares = {"reader_accuracy": self.reader, "bayes_accuracy": self.bayes}
        read = {str(temperature): share._asdict() for temperature, share in self.agreement.items()}
        return {
            "bits_per_dimension": {name: list(m) for name, m in self.bits.items()},
            **({"read_as_asked": read} if read else {}),
            **{name: share._asdict() for name, share in shares.items() if share is not None},
        }

    def lines(self) -> list[str]:
        """A line for each figure."""
        names = {
            "model": "bits per dimension",
            "previous_pixel": "  previous-pixel table",
            "logistic": "  logistic regression of each pixel",
            "other_caption": "  the caption of another image",
        }
        lines = [f"{names[name]:<36} {m.value:.3f} ± {m.interval:.3f}" for name, m in self.bits.items()]
        lines += [f"read as asked at temperature {t:<7g} {share}" for t, share in self.agreement.items()]
        if self.reader is not None:
            lines.append(f"  by a support vector machine, right {self.reader} on these {self.n:,} images")
            lines.append(f"Bayes' answer by the model, right   {self.bayes}")
        elif self.bayes is not None:
            lines.append(f"most probable of ten captions its own {self.bayes}")
        return lines
