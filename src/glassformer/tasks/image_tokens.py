"""Images as tokens: an ordinary decoder reads the class and writes an image, pixel by pixel, in raster order.

inputs     class:7  00  00  05  13  09 ...                 16 grey levels and the classes are its vocabulary
targets       00    00  05  13  09  01 ...

As in PixelRNN (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759) and Image GPT (Chen et al. 2020), the
probability of an image is the product over its pixels; its cost is in bits per dimension (pixel).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.example_splits import spread
from glassformer.data.images import load_images
from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Metric, Metrics, Share, WindowLosses
from glassformer.evaluation.images import logistic_costs, previous_pixel_costs, read_by_svm
from glassformer.evaluation.rows import evaluate_rows
from glassformer.figures.primitives import Figure, HeatMap
from glassformer.generation.image_tokens import class_log_probabilities, draw_images
from glassformer.generation.settings import Sampling
from glassformer.processors.image_tokens import MAX_LEVELS, MAX_SIDE, ImageTokenProcessor, grid
from glassformer.tasks.base import Batch, Opening
from glassformer.tasks.classify_images import first_size
from glassformer.tasks.examples import EVAL_ROWS, NonTextTask
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource, classes_of, numbers_of

JUDGED = 500  # images that a classifier reads, as many of each class
TEMPERATURES = (1.0, 0.8)  # at which they are written
BASELINE_IMAGES = 2_000  # that the logistic regressions learn from at most


class ImageTokensSettings(TaskSettings):
    """[task] of `image_tokens`."""

    image_size: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    """height and width that images are resized to; None: those of a named set, else of the first image"""
    levels: int = Field(default=16, ge=2, le=MAX_LEVELS)
    """of grey"""


@dataclass(kw_only=True)
class ImageTokenSource(SplitSource):
    """Images by split, and what makes ids of them."""

    processor: ImageTokenProcessor

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation image, or how it is read, does."""
        p = self.processor
        return self.digest(lambda image: (image.key, image.label), begin=repr((p.size, p.levels, p.labels)))


class ImageTokens(NonTextTask):
    """Cross-entropy of every pixel of an image, in nats a pixel, given its class and the pixels before it.

    A batch is (inputs, targets), each (B, height x width) ids.
    """

    holds: ClassVar[str] = "images"
    Settings = ImageTokensSettings
    asks: ClassVar[str] = "next_token"
    head: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}  # the images decide the number of tokens
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "draw"
    fixed_shape: ClassVar[bool] = True
    source: ImageTokenSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> ImageTokenSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("the grey levels and classes are the tokens; leave out the keys of [tokenizer]")
        images, known = load_images(data.source)
        if data.max_examples:
            images = {**images, "train": spread(images["train"], data.max_examples)}
        if opening.folder is not None:
            processor = ImageTokenProcessor.load(opening.folder)
        else:
            side = asked.image_size or (known.size[0] if known else first_size(images))
            if asked.image_size is None:
                choices.append(Choice("task.image_size", side, f"of {known.name if known else 'the first image'}"))
            labels = classes_of((image.label for image in images["train"]), ())
            processor = ImageTokenProcessor.make(size=(side, side), levels=asked.levels, labels=labels)
        return ImageTokenSource(name=data.source, examples=images, processor=processor)

    @property
    def n_answers(self) -> int:
        return self.processor.levels

    def model_fields(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.vocab_size, "block_size": self.processor.n_pixels}

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "labels": list(self.processor.labels)}

    def encode(self, split: str, T: int) -> list[Any]:
        """The ids of each image, the class first."""
        p = self.processor
        return [p.encode(image.image, image.label).astype(np.uint16) for image in self.source.examples[split]]

    def collate(self, examples: Sequence[np.ndarray], random: np.random.Generator | None = None) -> Batch:
        """Images as ids -> a batch."""
        ids_BT = torch.from_numpy(np.stack(examples).astype(np.int64))
        return ids_BT[:, :-1], ids_BT[:, 1:]

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, height x width, V)."""
        logits: Tensor = model(batch[0])
        return logits

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        found = super().evaluate(model, split, whole=whole)
        loss = found["loss"]
        bits = Metric(loss.value / math.log(2), loss.n, loss.interval / math.log(2))
        return Metrics({**found.values, "bits_per_dimension": bits}, found.windows)

    def sample(self, model: Any, step: int) -> list[Figure]:
        """An image of each of the first ten classes, at temperature 1."""
        p = self.processor
        drawn = draw_images(model, p, p.labels[:10], sampling=Sampling(seed=self.run.seed + step))
        whole = grid([[p.grey(each.ravel()) for each in drawn]]) / 255
        return [HeatMap(", ".join(p.labels[:10]), whole, [""] * len(whole), [""] * whole.shape[1], highest=1.0)]

    def extra_scores(self, model: Any, split: str = "validation") -> ImageScores:
        """Bits per dimension beside a table and logistic regressions, and what a support vector machine reads in images
        that the model writes; and Bayes' answer by the model itself."""
        p = self.processor
        train, held_out, test = (self._split(name) for name in ("train", "validation", split))
        D, n = p.n_pixels, len(test[0])
        few = spread(range(len(train[0])), BASELINE_IMAGES)
        some = train[0][few], train[1][few]
        ours, _ = evaluate_rows(model, self.rows, self._batches(split))
        costs = {
            "previous_pixel": previous_pixel_costs(train[0], test[0], p.levels),
            "logistic": logistic_costs(some, held_out, test, p.levels),
        }
        bits = {"model": _bits(ours.sums.numpy(), D), **{name: _bits(cost, D) for name, cost in costs.items()}}
        reader = read_by_svm(*train)
        classes = np.arange(max(len(p.labels), JUDGED // len(p.labels) * len(p.labels))) % len(p.labels)
        asked = [p.labels[c] for c in classes]
        agreement = {}
        for temperature in TEMPERATURES:
            drawn = draw_images(model, p, asked, sampling=Sampling(temperature=temperature, seed=self.run.seed))
            agreement[temperature] = Share.of((reader.predict(drawn.reshape(len(drawn), D)) == classes).tolist())
        bayes = class_log_probabilities(model, p, test[0]).argmax(axis=1) == test[1]
        read = Share.of((reader.predict(test[0]) == test[1]).tolist())
        return ImageScores(n, bits, agreement, read, Share.of(bayes.tolist()))

    def _split(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """(levels (N, D), numbers of the classes (N,)) of a split."""
        ids_NT = np.stack(self.encoded(split, self.processor.n_pixels)).astype(np.int64)
        labels = [image.label for image in self.source.examples[split]]
        return ids_NT[:, 1:], np.array(numbers_of(labels, self.processor.labels))

    def _batches(self, split: str) -> Iterable[Batch]:
        rows = self.encoded(split, self.processor.n_pixels)
        return (self.collate(rows[start : start + EVAL_ROWS]) for start in range(0, len(rows), EVAL_ROWS))


def _bits(costs_N: np.ndarray, D: int) -> Metric:
    """Bits per dimension of images whose pixels cost so many nats together."""
    windows = WindowLosses(torch.from_numpy(costs_N).double(), torch.full((len(costs_N),), D), "")
    loss = windows.metrics()["loss"]
    return Metric(loss.value / math.log(2), loss.n, loss.interval / math.log(2))


@dataclass(frozen=True)
class ImageScores:
    """bits: per dimension, of the model and of baselines, on n images. agreement: by temperature, the share of written
    images in which a support vector machine reads the class that was asked for. reader: its own accuracy on those n
    images. bayes: the model's, by the class that makes an image most probable."""

    n: int
    bits: dict[str, Metric]
    agreement: dict[float, Share]
    reader: Share
    bayes: Share

    def to_dict(self) -> dict[str, Any]:
        return {
            "bits_per_dimension": {name: list(m) for name, m in self.bits.items()},
            "read_as_asked": {str(temperature): share._asdict() for temperature, share in self.agreement.items()},
            "reader_accuracy": self.reader._asdict(),
            "bayes_accuracy": self.bayes._asdict(),
        }

    def lines(self) -> list[str]:
        """A line for each figure."""
        names = {
            "model": "bits per dimension",
            "previous_pixel": "  previous-pixel table",
            "logistic": "  logistic regression of each pixel",
        }
        bits = [f"{names[name]:<36} {m.value:.3f} ± {m.interval:.3f}" for name, m in self.bits.items()]
        read = [f"read as asked at temperature {t:<7g} {share}" for t, share in self.agreement.items()]
        return [
            *bits,
            *read,
            f"  by a support vector machine, right {self.reader} on these {self.n:,} images",
            f"Bayes' answer by the model, right   {self.bayes}",
        ]
