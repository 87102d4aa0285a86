"""The columns of records: numbers, words or images, and what a value of each becomes as members of a set."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.processors.image import ImageProcessor

KINDS = ("number", "word", "image")
MAX_WORDS = 10_000
"""Different words of a column."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")
FARTHEST = 10.0
"""Standard deviations: numbers that lie farther from the mean are read as this far."""


@dataclass(frozen=True)
class Part:
    """One column of the records.

    Attributes:
        name: of the column. kind: number, word or image.
        mean, std: of a column of numbers, which are standardised with them.
        words: those that are known; another one counts as missing.
        size, patch, channels: of images: their side and that of a patch in pixels, and 1 (grey) or 3 (RGB).
    """

    name: str
    kind: str
    mean: float = 0.0
    std: float = 1.0
    words: tuple[str, ...] = ()
    size: int = 0
    patch: int = 0
    channels: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise UsageError(f"part {self.name!r} is of the kind {self.kind!r}; {did_you_mean(self.kind, KINDS)}")
        if not (math.isfinite(self.mean) and math.isfinite(self.std) and self.std > 0):
            raise UsageError(f"part {self.name!r}: mean {self.mean} and std {self.std}; give finite numbers, std > 0")
        if self.kind == "image" and (self.patch < 1 or self.size < 1 or self.size % self.patch):
            raise UsageError(f"images of {self.size} pixels are not divisible by patch_size={self.patch}; give another")

    @property
    def members(self) -> int:
        """How many members it gives."""
        return (self.size // self.patch) ** 2 if self.kind == "image" else 1

    @property
    def width(self) -> int:
        """Numbers of one of them."""
        return {"number": 1, "word": 0, "image": self.channels * self.patch**2}[self.kind]

    @cached_property
    def images(self) -> ImageProcessor:
        """What reads its images."""
        middle = (0.5,) * self.channels
        return ImageProcessor(size=(self.size, self.size), mean=middle, std=middle)

    @classmethod
    def fit(cls, name: str, values: Sequence[Any], *, as_words: bool, image_size: int | None, patch_size: int) -> Part:
        """The column that holds these values; see `SetProcessor.fit`."""
        images = [_is_image(value) for value in values]
        if any(images):
            if not all(images):
                raise DataError(f"column {name[:40]!r} holds images and other values; give it one kind")
            pixels = values[0]
            grey = hasattr(pixels, "shape") and pixels.ndim == 2
            return cls(name, "image", size=image_size or _side(pixels), patch=patch_size, channels=1 if grey else 3)
        numbers = [] if as_words else [_number(value) for value in values]
        if numbers and None not in numbers:
            array = np.array(numbers, dtype=np.float64)
            return cls(name, "number", mean=float(array.mean()), std=float(array.std()) or 1.0)
        found = sorted({str(value) for value in values})
        if len(found) > MAX_WORDS:
            raise DataError(
                f"column {name[:40]!r} has {len(found):,} different words; {MAX_WORDS:,} at most: leave it out"
            )
        return cls(name, "word", words=tuple(found))

    def encode(self, value: Any) -> list[tuple[int | None, Any]]:
        """(number of the word or None, numbers) of each member of a value.

        Raises:
            DataError: the value is of another kind.
        """
        if self.kind == "word":
            word = str(value)
            return [(self.words.index(word), ())] if word in self.words else []
        if self.kind == "number":
            number = _number(value)
            if number is None or not math.isfinite(number):
                raise DataError(
                    f"column {self.name[:40]!r} holds numbers, and {str(value)[:40]!r} is none; give a finite one"
                )
            return [(None, float(np.clip((number - self.mean) / self.std, -FARTHEST, FARTHEST)))]
        if not _is_image(value):
            raise DataError(f"column {self.name[:40]!r} holds images, and {str(value)[:40]!r} is none; give a path")
        pixels_CHW, P, n = self.images.encode(value), self.patch, self.size // self.patch
        patches = pixels_CHW.reshape(-1, n, P, n, P).transpose(1, 3, 0, 2, 4).reshape(n * n, -1)
        return [(None, patch) for patch in patches]

    def amount(self, standard: Any) -> float:
        """A number in its column's unit, without the error of fp32."""
        digits = 5 - math.floor(math.log10(self.std))
        return round(float(standard) * self.std + self.mean, digits)

    def pixels_of(self, patches: np.ndarray) -> np.ndarray:
        """The pixels (channels, size, size) of all patches."""
        n, P, C = self.size // self.patch, self.patch, self.channels
        return patches.reshape(n, n, C, P, P).transpose(2, 0, 3, 1, 4).reshape(C, self.size, self.size)


def _is_image(value: Any) -> bool:
    return hasattr(value, "shape") or isinstance(value, Path) or str(value).lower().endswith(IMAGE_SUFFIXES)


def _number(value: Any) -> float | None:
    try:
        return None if isinstance(value, (bool, Path)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _side(image: Any) -> int:
    if hasattr(image, "shape"):
        return int(min(image.shape[:2]))
    from PIL import Image

    try:
        with Image.open(image) as opened:
            return min(opened.size)
    except OSError as error:
        raise DataError(f"{image}: no readable image ({error}); give another") from None
