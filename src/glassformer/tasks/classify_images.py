"""Classify images: one label for an image, such as the digit that it shows.

pixels ──patches, class token──► encoder ──► vector of the class token ──head──► logits of the classes
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.example_splits import spread
from glassformer.data.images import load_images
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Share
from glassformer.figures.primitives import Column, Figure, HeatMap, Table
from glassformer.generation.eval_mode import evaluating
from glassformer.generation.shifts import class_probabilities
from glassformer.processors.image import ImageProcessor
from glassformer.tasks.base import Batch, Batches, Loss, Opening
from glassformer.tasks.examples import EVAL_ROWS, NonTextTask
from glassformer.tasks.image_settings import ImageSettings, side_of
from glassformer.tasks.losses import number_of, summed_cross_entropy
from glassformer.tasks.settings import Choice, TokenizerSettings
from glassformer.tasks.sources import SplitSource, classes_of, numbers_of

MAX_BYTES = 4 << 30
"""Of the pixels of one split in memory."""
LARGEST_SAMPLE = 32
"""Side of an image that is drawn as a sample, in pixels."""


class ClassifyImagesSettings(ImageSettings):
    """[task] of `classify_images`."""

    grey: bool | None = None
    """one channel in place of three; None: as the named set, else False"""
    fold: int = Field(default=0, ge=0)
    """of a named set: which part of it tests, so that several runs test on all of it"""
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """this share of each target is spread over all classes; the reported loss is without it"""
    shift: float = Field(default=0.0, ge=0, le=1)
    """`evaluate` also has the accuracy of the mean over five copies, moved by so many pixels; 0: it has not"""


@dataclass(frozen=True)
class ShiftedAccuracy:
    """How often the mean over copies that are moved by `shift` pixels is right."""

    shift: float
    accuracy: Share

    def to_dict(self) -> dict[str, Any]:
        return {"shift": self.shift, "shifted_accuracy": self.accuracy._asdict()}

    def lines(self) -> list[str]:
        return [f"mean over shifts of {self.shift:g} px {self.accuracy}"]


@dataclass(kw_only=True)
class ImageSource(SplitSource):
    """Images by split, and what makes arrays of them."""

    processor: ImageProcessor

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation image, or how it is read, does."""
        return self.digest(lambda image: (image.key, image.label), begin=repr(self.processor))

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that the images decide."""
        size, channels = self.processor.size[0], self.processor.n_channels
        fields = {"stem": "patches", "image_size": size, "n_channels": channels, "vocab_size": 1}
        return {**fields, "n_classes": len(self.labels)}


class ClassifyImages(NonTextTask):
    """Cross-entropy over the classes of images, as a Vision Transformer is trained (Dosovitskiy et al. 2020,
    https://arxiv.org/abs/2010.11929).

    A batch is (images (B, channels, size, size) fp32, labels_B).
    """

    holds: ClassVar[str] = "images"
    Settings = ClassifyImagesSettings
    reads: ClassVar[str] = "patches"
    asks: ClassVar[str] = "class"
    defaults: ClassVar[Mapping[str, Any]] = {}  # the images decide the number of patches
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "classify"
    fixed_shape: ClassVar[bool] = True
    source: ImageSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> ImageSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("images have no tokenizer; leave out the keys of [tokenizer]")
        images, known = load_images(data.source, fold=asked.fold)
        if data.max_examples:
            images = {**images, "train": spread(images["train"], data.max_examples)}
        if opening.folder is not None:
            processor = _inherited(ImageProcessor.load(opening.folder), asked)
        else:
            grey = asked.grey if asked.grey is not None else bool(known and known.n_channels == 1)
            size = side_of(asked.image_size, images, known, choices)
            mean = (0.5,) if grey else (0.5,) * 3
            processor = ImageProcessor(size=(size, size), mean=mean, std=mean)
        labels = classes_of((image.label for image in images["train"]), opening.labels)
        return ImageSource(name=data.source, examples=images, processor=processor, labels=labels)

    def encode(self, split: str, T: int) -> list[Any]:
        """(pixels (channels, size, size), number of the label)."""
        images = self.source.examples[split]
        height, width = self.processor.size
        if (n_bytes := 4 * self.processor.n_channels * height * width * len(images)) > MAX_BYTES:
            raise DataError(
                f"{len(images):,} images of {height} x {width} are {n_bytes >> 30} GiB; use a smaller task.image_size"
            )
        numbers = numbers_of([image.label for image in images], self.labels)
        return [(self.processor.encode(image.image), number) for image, number in zip(images, numbers, strict=True)]

    def collate(self, examples: Sequence[tuple[np.ndarray, int]], random: np.random.Generator | None = None) -> Batch:
        """(pixels, label) pairs -> a batch."""
        images = torch.from_numpy(np.stack([pixels for pixels, _ in examples]))
        return images, torch.tensor([label for _, label in examples], dtype=torch.int64)

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """As of any task on examples; training images are changed at random if the settings say so."""
        batches = super().batches(split, rank, world_size)
        if split == "train":
            self.settings.change_at_random(batches)
        return batches

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The cross-entropy, smoothed if the settings say so."""
        total = summed_cross_entropy(self.logits(model, batch), batch[1], self.settings.label_smoothing)
        return Loss(total, number_of(batch[1]))

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, classes)."""
        logits: Tensor = model.sequence_logits(model(batch[0]))
        return logits

    def extra_scores(self, model: Any, split: str = "validation") -> ShiftedAccuracy | None:
        """The accuracy of the mean over copies that are moved (`generation/shifts.py`), if the settings say so."""
        if not self.settings.shift:
            return None
        examples, right = self.encoded(split, model.config.block_size), list[bool]()
        device = next(model.parameters()).device
        with evaluating(model):
            for start in range(0, len(examples), EVAL_ROWS):
                pixels, labels_B = self.collate(examples[start : start + EVAL_ROWS])
                p_BC = class_probabilities(model, pixels.to(device), self.settings.shift)
                right += (p_BC.argmax(dim=-1).cpu() == labels_B).tolist()
        return ShiftedAccuracy(self.settings.shift, Share.of(right))

    def sample(self, model: Any, step: int) -> list[Figure]:
        """One held-out image, another one at each step, and the probability of each class."""
        examples = self.encoded("validation", model.config.block_size)
        pixels, label = examples[step % len(examples)]
        probabilities = self.answer(model, (pixels, label)).softmax(dim=-1).tolist()
        grey = np.asarray(self.processor.decode(pixels).convert("L"), dtype=float) / 255
        rows, columns = ([str(place) for place in range(n)] for n in grey.shape)
        table = Table(
            f"This is {self.labels[label]}",
            [Column("class"), Column("probability", "share")],
            sorted(zip(self.labels, probabilities, strict=True), key=lambda row: -row[1])[:5],
        )
        image = HeatMap("image", grey, rows, columns, highest=1.0)
        return [image, table] if max(grey.shape) <= LARGEST_SAMPLE else [table]


def _inherited(processor: ImageProcessor, asked: Any) -> ImageProcessor:
    """The processor of an existing model, for images of the size that is asked for.

    Raises:
        UsageError: the model reads another number of channels.
    """
    if asked.grey is not None and asked.grey != (processor.n_channels == 1):
        reads = "grey" if processor.n_channels == 1 else "colour"
        raise UsageError(f"task.grey={str(asked.grey).lower()}, and the model reads {reads} images; leave it out")
    if asked.image_size in (None, processor.size[0]):
        return processor
    return replace(processor, size=(asked.image_size,) * 2, resize=None)
