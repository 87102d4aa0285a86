"""Images to tokens and back: the class, then each pixel's grey level in raster order, as words of a small language.

    class:7 00 00 05 13 09 01 00 00 00 ...           8 x 8 pixels of 16 levels: 65 words

    processor = ImageTokenProcessor.make(size=(8, 8), levels=16, labels=("0", "1", "2"))
    ids = processor.encode("seven.png", "7")        # (65,)
    processor.decode(ids)                           # a PIL.Image
    processor.save("runs/NAME/model")               # tokenizer.json and preprocessor_config.json

The ids 0 ... levels - 1 are the levels from black to white, those of the classes follow. Since it is a text with a
tokenizer, an ordinary decoder reads and writes it, here and in other programs.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, ModelFolderError, UsageError, did_you_mean
from glassformer.files import write_json
from glassformer.processors.image import ImageProcessor
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.text_files import read_json

FILE = "preprocessor_config.json"
TYPE = "ImageTokenProcessor"
MAX_LEVELS = 64
MAX_SIDE = 64
"""Of an image in pixels: attention grows with the square of their number."""
MAX_JSON_BYTES = 1 << 24


@dataclass(frozen=True)
class ImageTokenProcessor:
    """Grey images of one size and the names of their classes. levels: of grey, 2 to 64.

    Raises:
        UsageError: a size or a number of levels that is not taken. DataError: two classes with one word.
    """

    size: tuple[int, int]
    levels: int
    labels: tuple[str, ...]
    tokenizer: Tokenizer

    @classmethod
    def make(cls, *, size: tuple[int, int], levels: int, labels: Sequence[str]) -> ImageTokenProcessor:
        """With a new tokenizer."""
        if not 2 <= levels <= MAX_LEVELS:
            raise UsageError(f"levels={levels} is out of range; use 2 to {MAX_LEVELS}")
        if not all(1 <= side <= MAX_SIDE for side in size):
            raise UsageError(f"size={size} is out of range; use 1 to {MAX_SIDE} pixels a side")
        words = [word_of(label) for label in labels]
        if twice := next((word for word in words if words.count(word) > 1), None):
            raise DataError(f"two classes would have the word {twice!r}; rename one")
        grey = [f"{level:02d}" for level in range(levels)]
        return cls(size, levels, tuple(labels), TOKENIZERS["words"]([" ".join((*grey, *words))]))

    @property
    def n_pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def pixels(self) -> ImageProcessor:
        """What reads and resizes images."""
        return ImageProcessor(size=self.size, mean=(0.0,), std=(1.0,), scale=1.0)

    def class_id(self, label: str) -> int:
        """The id of a class.

        Raises:
            UsageError: there is no such class.
        """
        if label not in self.labels:
            raise UsageError(f"there is no class {label!r}; {did_you_mean(label, self.labels)}")
        return self.tokenizer.encode(word_of(label))[0]

    def levels_of(self, image: Any) -> np.ndarray:
        """The grey levels of an image, (height, width) int64, the nearest of equally spaced ones; raises as
        `ImageProcessor.encode`."""
        grey_HW = self.pixels.encode(image)[0]
        return np.rint(grey_HW * (self.levels - 1) / 255).astype(np.int64)

    def encode(self, image: Any, label: str) -> np.ndarray:
        """The ids of an image of a class: (1 + height x width,)."""
        return np.concatenate([[self.class_id(label)], self.levels_of(image).ravel()])

    def decode(self, ids: Sequence[int] | np.ndarray) -> Any:
        """The image of ids, with the class or without, as a `PIL.Image` of mode L.

        Raises:
            UsageError: there are not as many as the image has pixels, or one is no grey level.
        """
        return self.pixels.decode(self.grey(ids)[None])

    def grey(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The pixels of ids from 0 to 255, (height, width) uint8; raises as `decode`."""
        array = np.asarray(ids)
        array = array[1:] if array.size == self.n_pixels + 1 else array
        if array.size != self.n_pixels or not ((array >= 0) & (array < self.levels)).all():
            raise UsageError(f"{array.size} ids: give the levels 0 to {self.levels - 1} of {self.n_pixels} pixels")
        return np.rint(array.reshape(self.size) * (255 / (self.levels - 1))).astype(np.uint8)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files and preprocessor_config.json."""
        self.tokenizer.save(folder)
        fields = {"processor_type": TYPE, "size": list(self.size), "levels": self.levels, "labels": list(self.labels)}
        write_json(Path(folder) / FILE, fields)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ImageTokenProcessor:
        """The processor of a model folder.

        Raises:
            ModelFolderError: it is missing or damaged, or does not belong to the tokenizer.
        """
        file = Path(folder) / FILE
        given: Any = read_json(file, ModelFolderError, most=MAX_JSON_BYTES) if file.is_file() else {}
        if given.get("processor_type") != TYPE:
            raise ModelFolderError(f"{folder}: writes no images; train one with task.kind=image_tokens")
        size, levels, labels = (given.get(name) for name in ("size", "levels", "labels"))
        try:
            height, width = size
            if {type(n) for n in (height, width, levels)} != {int} or {type(label) for label in labels} != {str}:
                raise TypeError
            made = cls.make(size=(height, width), levels=levels, labels=labels)
        except (UsageError, DataError) as error:
            raise ModelFolderError(f"{file}: {error}") from None
        except (TypeError, ValueError):
            raise ModelFolderError(f"{file}: size, levels or labels are damaged; copy the folder again") from None
        if load_tokenizer(folder) != made.tokenizer:
            raise ModelFolderError(f"{file}: does not belong to the tokenizer beside it; copy the folder again, whole")
        return made


def word_of(label: str) -> str:
    """The word of a class.

    >>> word_of("red seven")
    'class:red_seven'
    """
    return "class:" + "_".join(label.split())


def grid(pictures: Sequence[Sequence[np.ndarray]], gap: int = 1) -> np.ndarray:
    """Pictures in rows, (height, width) uint8 each, as one, `gap` pixels of middle grey between them; (H, W)."""
    height, width = pictures[0][0].shape
    rows, columns = len(pictures), max(map(len, pictures))
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap), 128, dtype=np.uint8)
    for r, row in enumerate(pictures):
        for c, picture in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            whole[top : top + height, left : left + width] = picture
    return whole
