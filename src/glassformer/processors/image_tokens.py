"""Images to tokens and back: a class or a caption, then each pixel in raster order, as words of a small language.

    class:7 00 00 05 13 09 01 00 00 00 ...                     8 x 8 pixels of 16 grey levels: 65 words
    word: word:a word:red word:seven 00 00 18 17 00 ...        16 x 16 pixels of 19 colours, a caption of 4 words: 260
    word: word:a word:red word:seven 0000 0921 ...             the same in patches of 2 x 2 pixels: 68

    processor = ImageTokenProcessor.make(size=(8, 8), levels=16, labels=("0", "1", "2"))
    ids = processor.encode("seven.png", "7")        # (65,)
    processor.decode(ids)                           # a PIL.Image
    processor.save("runs/NAME/model")               # tokenizer.json and preprocessor_config.json

The ids 0 ... levels - 1 are the levels from black to white, or the colours of a palette (as in Image GPT, Chen et al.
2020, which has 512), or with `codes` the patches of a book (`processors/patch_codes.py`); those of classes or words
follow. A caption is filled up with `word:` from the left, so that a pixel has the same position in all images. Since it
is a text with a tokenizer, an ordinary decoder reads and writes it, here and in other programs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, ModelFolderError, UsageError, did_you_mean, plural
from glassformer.files import write_json
from glassformer.processors.image import ImageProcessor
from glassformer.processors.patch_codes import MAX_PATCH, Codes, PatchCodes, check_codes
from glassformer.processors.tokenizers import TOKENIZERS, Tokenizer, load_tokenizer
from glassformer.text_files import read_json

FILE = "preprocessor_config.json"
TYPE = "ImageTokenProcessor"
MAX_LEVELS = 64
MAX_SIDE = 64
"""Of an image in pixels: attention grows with the square of their number."""
MAX_WORDS = 64
"""Of a caption."""
MAX_JSON_BYTES = 1 << 24
Palette = tuple[tuple[int, int, int], ...]
"""Colours as red, green, blue, 0 to 255 each."""


@dataclass(frozen=True)
class ImageTokenProcessor:
    """Images of one size, grey or in the colours of a palette, and what they can be asked for with.

    levels: of grey, or colours: 2 to 64. labels: the names of the classes; with captions, some to show. palette: the
    colours; (): grey. words: that captions are made of; (): classes. n_words: of the longest caption. patch_size:
    height and width in pixels of what a token stands for. codes: the levels of each such patch; (): a token is a pixel.
    drops_captions: whether some training images had an empty one.

    Raises:
        UsageError: a size or a number of levels that is not taken. DataError: two classes with one word.
    """

    size: tuple[int, int]
    levels: int
    labels: tuple[str, ...]
    tokenizer: Tokenizer
    palette: Palette = ()
    words: tuple[str, ...] = ()
    n_words: int = 1
    patch_size: int = 1
    codes: Codes = ()
    drops_captions: bool = False

    @classmethod
    def make(
        cls,
        *,
        size: tuple[int, int],
        levels: int = 16,
        labels: Sequence[str],
        palette: Palette = (),
        words: Sequence[str] = (),
        n_words: int = 1,
        patch_size: int = 1,
        codes: Codes = (),
        drops_captions: bool = False,
    ) -> ImageTokenProcessor:
        """With a new tokenizer. levels: of grey; a palette has as many as colours."""
        levels = len(palette) or levels
        if not 2 <= levels <= MAX_LEVELS:
            raise UsageError(f"{'colours' if palette else 'levels'}={levels} is out of range; use 2 to {MAX_LEVELS}")
        if not all(1 <= side <= MAX_SIDE for side in size):
            raise UsageError(f"size={size} is out of range; use 1 to {MAX_SIDE} pixels a side")
        if not 1 <= n_words <= MAX_WORDS:
            raise UsageError(f"a caption of {n_words} words; use 1 to {MAX_WORDS}")
        check_patch(patch_size, size)
        if drops_captions and not words:
            raise UsageError("images of classes have no captions to drop; leave out drop_captions")
        if (patch_size > 1) != bool(codes):
            raise UsageError(f"patch_size={patch_size} with {plural(len(codes), 'code')}; give both or neither")
        texts = [f"word:{word}" for word in ("", *words)] if words else [word_of(label) for label in labels]
        if twice := next((word for word in texts if texts.count(word) > 1), None):
            raise DataError(f"two classes would have the word {twice!r}; rename one")
        pieces = [f"{code:04d}" for code in range(len(codes))] or [f"{level:02d}" for level in range(levels)]
        tokenizer = TOKENIZERS["words"]([" ".join((*pieces, *texts))])
        told = tuple(words), n_words if words else 1
        return cls(size, levels, tuple(labels), tokenizer, palette, *told, patch_size, codes, drops_captions)

    @property
    def n_pixels(self) -> int:
        return self.size[0] * self.size[1]

    @property
    def grid_size(self) -> tuple[int, int]:
        """Rows and columns of tokens."""
        return self.size[0] // self.patch_size, self.size[1] // self.patch_size

    @property
    def n_pieces(self) -> int:
        """Tokens of an image without its class or caption: pixels or patches."""
        return self.n_pixels // self.patch_size**2

    @property
    def n_piece_ids(self) -> int:
        """Levels or codes: the ids 0 ... n_piece_ids - 1."""
        return len(self.codes) or self.levels

    @cached_property
    def patches(self) -> PatchCodes | None:
        """What makes codes of patches; None: a token is a pixel."""
        return PatchCodes(self.codes, self.table) if self.codes else None

    @cached_property
    def pixels(self) -> ImageProcessor:
        """What reads and resizes images."""
        n = 3 if self.palette else 1
        return ImageProcessor(size=self.size, mean=(0.0,) * n, std=(1.0,) * n, scale=1.0)

    @cached_property
    def table(self) -> np.ndarray:
        """The colours of the ids, 0 to 255: (levels,) of grey or (levels, 3); uint8."""
        if self.palette:
            return np.array(self.palette, dtype=np.uint8)
        return np.rint(np.arange(self.levels) * (255 / (self.levels - 1))).astype(np.uint8)

    @property
    def no_condition(self) -> list[int]:
        """The ids of an empty caption."""
        return self.tokenizer.encode(" ".join(["word:"] * self.n_words))

    def condition(self, text: str, *, known_only: bool = False) -> list[int]:
        """The ids of a class, or of a caption: what stands before the pixels.

        known_only: words that no training caption had are left out, and so is what is beyond the longest one.

        Raises:
            UsageError: there is no such class; no caption, a longer one, or an unknown word.
        """
        if not self.words:
            if text not in self.labels:
                raise UsageError(f"there is no class {text!r}; {did_you_mean(text, self.labels)}")
            return self.tokenizer.encode(word_of(text))
        given = words_in(text)
        if known_only:
            given = [word for word in given if word in self.words][: self.n_words]
        elif unknown := next((word for word in given if word not in self.words), None):
            raise UsageError(f"no caption has the word {unknown!r}; {did_you_mean(unknown, self.words)}")
        elif not 1 <= len(given) <= self.n_words:
            example = f'such as "{self.labels[0]}"' if self.labels else ""
            raise UsageError(
                f"{text!r} has {plural(len(given), 'word')}; give a caption of 1 to {self.n_words} {example}"
            )
        filled = [""] * (self.n_words - len(given)) + given
        return self.tokenizer.encode(" ".join(f"word:{word}" for word in filled))

    def levels_of(self, image: Any) -> np.ndarray:
        """The ids of the pixels of an image, (height, width) int64: the nearest of equally spaced grey levels, or of
        the colours; raises as `ImageProcessor.encode`."""
        pixels_CHW = self.pixels.encode(image)
        if not self.palette:
            return np.rint(pixels_CHW[0] * (self.levels - 1) / 255).astype(np.int64)
        seen_P3, place_P = np.unique(pixels_CHW.reshape(3, -1).T, axis=0, return_inverse=True)
        squares_PL = ((seen_P3[:, None] - self.table.astype(np.float32)) ** 2).sum(axis=2)
        return squares_PL.argmin(axis=1)[place_P.ravel()].reshape(self.size)

    def pieces_of(self, image: Any) -> np.ndarray:
        """The ids of the pixels or patches of an image, `grid_size` int64; raises as `levels_of`."""
        levels_HW = self.levels_of(image)
        return self.patches.encode(levels_HW) if self.patches else levels_HW

    def levels_in(self, ids: np.ndarray) -> np.ndarray:
        """The levels of the pixels of images as ids, (N, n_pieces) -> (N, n_pixels)."""
        if self.patches is None:
            return ids
        return self.patches.decode(ids.reshape(-1, *self.grid_size)).reshape(len(ids), -1)

    def encode(self, image: Any, text: str, *, known_only: bool = False) -> np.ndarray:
        """The ids of an image of a class or with a caption: (n_words + n_pieces,)."""
        return np.concatenate([self.condition(text, known_only=known_only), self.pieces_of(image).ravel()])

    def decode(self, ids: Sequence[int] | np.ndarray) -> Any:
        """The image of ids, with what stands before the pixels or without, as a `PIL.Image` of mode L or RGB.

        Raises:
            UsageError: there are not as many as the image has pixels or patches, or one is none.
        """
        picture = self.picture(ids)
        return self.pixels.decode(picture.transpose(2, 0, 1) if self.palette else picture[None])

    def picture(self, ids: Sequence[int] | np.ndarray) -> np.ndarray:
        """The pixels of ids from 0 to 255, uint8: (height, width) of grey or (height, width, 3); raises as `decode`."""
        array = np.asarray(ids)
        array = array[self.n_words :] if array.size == self.n_pieces + self.n_words else array
        if array.size != self.n_pieces or not ((array >= 0) & (array < self.n_piece_ids)).all():
            raise UsageError(f"{array.size} ids: give {self.n_pieces} from 0 to {self.n_piece_ids - 1}")
        found: np.ndarray = self.table[self.levels_in(array.reshape(1, -1)).reshape(self.size)]
        return found

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the tokenizer's files and preprocessor_config.json."""
        self.tokenizer.save(folder)
        fields = {"processor_type": TYPE, "size": list(self.size), "levels": self.levels, "labels": list(self.labels)}
        colours = {"palette": [list(colour) for colour in self.palette]} if self.palette else {}
        captions = {"words": list(self.words), "n_words": self.n_words} if self.words else {}
        patches = {"patch_size": self.patch_size, "codes": self.codes} if self.codes else {}
        dropped = {"drops_captions": True} if self.drops_captions else {}
        write_json(Path(folder) / FILE, {**fields, **colours, **captions, **patches, **dropped})

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
        words, n_words = given.get("words", []), given.get("n_words", 1)
        p = given.get("patch_size", 1)
        try:
            height, width = size
            codes: Any = tuple(map(tuple, given.get("codes", [])))
            palette: Any = tuple(tuple(colour) for colour in given.get("palette", []))
            parts = (part for row in (*palette, *codes) for part in row)
            numbers = [height, width, levels, n_words, p, *parts]
            if not _all(int, numbers) or not _all(str, [*labels, *words]) or {len(c) for c in palette} - {3}:
                raise TypeError
            if not all(0 <= part <= 255 for colour in palette for part in colour):
                raise ValueError
            if codes:
                check_codes(codes, p, len(palette) or levels)
            if type(dropped := given.get("drops_captions", False)) is not bool:
                raise TypeError
            options = {"palette": palette, "words": words, "n_words": n_words, "patch_size": p, "codes": codes}
            options["drops_captions"] = dropped
            made = cls.make(size=(height, width), levels=levels, labels=labels, **options)
        except (UsageError, DataError) as error:
            raise ModelFolderError(f"{file}: {error}") from None
        except (TypeError, ValueError):
            raise ModelFolderError(
                f"{file}: size, levels, labels, palette, words or codes are damaged; copy the folder again"
            ) from None
        if load_tokenizer(folder) != made.tokenizer:
            raise ModelFolderError(f"{file}: does not belong to the tokenizer beside it; copy the folder again, whole")
        return made


def check_patch(p: int, size: tuple[int, int]) -> None:
    """Raise `UsageError` where patches are of no size that is taken, or do not fill an image."""
    if not 1 <= p <= MAX_PATCH:
        raise UsageError(f"patch_size={p} is out of range; use 1 to {MAX_PATCH}")
    if size[0] % p or size[1] % p:
        fitting = [n for n in range(1, MAX_PATCH + 1) if size[0] % n == size[1] % n == 0]
        raise UsageError(f"patches of {p} x {p} do not fill {size[0]} x {size[1]} pixels; use patch_size={fitting[-1]}")


def _all(kind: type, values: Iterable[Any]) -> bool:
    return all(type(value) is kind for value in values)


def word_of(label: str) -> str:
    """The word of a class.

    >>> word_of("red seven")
    'class:red_seven'
    """
    return "class:" + "_".join(label.split())


def words_in(caption: str) -> list[str]:
    """The words of a caption, in small letters and without punctuation.

    >>> words_in("A large red seven, top-left!")
    ['a', 'large', 'red', 'seven', 'top-left']
    """
    return re.findall(r"[^\W_]+(?:['’-][^\W_]+)*", caption.lower())


def palette_of(images: Sequence[Any], size: tuple[int, int], colours: int) -> Palette:
    """The colours of images that were resized, from dark to light: all of them, or where they are more than `colours`,
    as many middles of clusters (median cut, then k-means).

    Raises:
        MissingExtraError: without Pillow. DataError: an image cannot be read.
    """
    from PIL import Image

    reader = ImageProcessor(size=size, mean=(0.0,) * 3, std=(1.0,) * 3, scale=1.0)
    pixels_P3 = np.concatenate([reader.encode(image).reshape(3, -1).T for image in images]).astype(np.uint8)
    found = np.unique(pixels_P3, axis=0)
    if len(found) > colours:
        method = Image.Quantize.MEDIANCUT
        quantized = Image.fromarray(pixels_P3.reshape(1, -1, 3)).quantize(colours, method=method, kmeans=2)
        found = np.unique(
            np.array((quantized.getpalette() or [])[: 3 * colours], dtype=np.uint8).reshape(-1, 3), axis=0
        )
    light = found @ np.array((0.299, 0.587, 0.114))
    return tuple(tuple(colour) for colour in found[np.argsort(light, kind="stable")].tolist())


def grid(pictures: Sequence[Sequence[np.ndarray]], gap: int = 1) -> np.ndarray:
    """Pictures in rows, (height, width) or (height, width, 3) uint8 each, as one, `gap` pixels of middle grey between
    them; (H, W) or (H, W, 3)."""
    height, width, *channels = pictures[0][0].shape
    rows, columns = len(pictures), max(map(len, pictures))
    whole = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, *channels), 128, dtype=np.uint8)
    for r, row in enumerate(pictures):
        for c, picture in enumerate(row):
            top, left = r * (height + gap), c * (width + gap)
            whole[top : top + height, left : left + width] = picture
    return whole
