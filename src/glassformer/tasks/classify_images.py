"""Classify images: one label for an image, such as the digit that it shows.

pixels ──patches, class token──► encoder ──► vector of the class token ──head──► logits of the classes
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from glassformer.data.example_splits import spread
from glassformer.data.images import LabelledImages, load_images
from glassformer.errors import DataError, UsageError
from glassformer.figures.primitives import Column, Figure, HeatMap, Table
from glassformer.processors.image import ImageProcessor
from glassformer.tasks.base import Batch, Opening
from glassformer.tasks.examples import ExampleTask
from glassformer.tasks.settings import Choice, DataSettings, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource, classes_of, numbers_of

MAX_BYTES = 4 << 30
"""Of the pixels of one split in memory."""
LARGEST_SAMPLE = 32
"""Side of an image that is drawn as a sample, in pixels."""


class ClassifyImagesSettings(TaskSettings):
    """[task] of `classify_images`."""

    image_size: int | None = Field(default=None, ge=1, le=4096)
    """height and width that images are resized to; None: those of a named set, else of the first image"""
    grey: bool | None = None
    """one channel in place of three; None: as the named set, else False"""


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


class ClassifyImages(ExampleTask):
    """Cross-entropy over the classes of images, as a Vision Transformer is trained (Dosovitskiy et al. 2020,
    https://arxiv.org/abs/2010.11929).

    A batch is (images (B, channels, size, size) fp32, labels_B).
    """

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
        images, known = load_images(data.source)
        if data.max_examples:
            images = {**images, "train": spread(images["train"], data.max_examples)}
        if opening.folder is not None:
            processor = ImageProcessor.load(opening.folder)
        else:
            grey = asked.grey if asked.grey is not None else bool(known and known.n_channels == 1)
            size = asked.image_size or (known.size[0] if known else first_size(images))
            if asked.image_size is None:
                choices.append(Choice("task.image_size", size, f"of {known.name if known else 'the first image'}"))
            mean = (0.5,) if grey else (0.5,) * 3
            processor = ImageProcessor(size=(size, size), mean=mean, std=mean)
        labels = classes_of((image.label for image in images["train"]), opening.labels)
        return ImageSource(name=data.source, examples=images, processor=processor, labels=labels)

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        return {}

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        raise DataError(f"{data.source} holds images and no text")

    @property
    def processor(self) -> ImageProcessor:
        return self.source.processor

    @property
    def source_tokenizer(self) -> None:
        return None

    @property
    def longest(self) -> int:
        return 0

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

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, classes)."""
        logits: Tensor = model.sequence_logits(model(batch[0]))
        return logits

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


def first_size(images: LabelledImages) -> int:
    """The side of the first training image, the shorter one where they differ."""
    from PIL import Image

    with Image.open(images["train"][0].image) as image:
        return min(image.size)
