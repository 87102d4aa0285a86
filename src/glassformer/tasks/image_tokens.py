"""Images as tokens: a decoder reads a class or a caption and writes an image, pixel by pixel, in raster order.

inputs     class:7                 00  00  05  13  09 ...     16 grey levels and the classes are its vocabulary
targets       00                   00  05  13  09  01 ...

inputs     word:red   word:seven   00  00  18  17  00 ...     colours of a palette and the words of captions
targets       -           00       00  18  17  00  00 ...

As in PixelRNN (van den Oord et al. 2016, https://arxiv.org/abs/1601.06759) and Image GPT (Chen et al. 2020), the
probability of an image is the product over its pixels; its cost is in bits per dimension (pixel). With captions it is
text to image as in DALL-E (Ramesh et al. 2021, https://arxiv.org/abs/2102.12092), with pixels, or the patches of a book
that is counted, for its learned tokens.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from glassformer.data.captions import CaptionedSet, load_captioned
from glassformer.data.example_splits import spread
from glassformer.data.images import ImageSet, LabelledImages, load_images
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Metric, Metrics, Share
from glassformer.evaluation.images import (
    ImageScores,
    bits_per_dimension,
    logistic_costs,
    previous_pixel_costs,
    read_by_svm,
)
from glassformer.evaluation.rows import evaluate_rows
from glassformer.figures.primitives import Figure, HeatMap
from glassformer.generation.image_tokens import class_log_probabilities, draw_images
from glassformer.generation.settings import Sampling
from glassformer.processors.image_tokens import (
    MAX_LEVELS,
    MAX_SIDE,
    MAX_WORDS,
    ImageTokenProcessor,
    Palette,
    check_patch,
    grid,
    palette_of,
    words_in,
)
from glassformer.processors.patch_codes import MAX_PATCH, codes_of
from glassformer.tasks.base import Batch, Batches, Opening
from glassformer.tasks.examples import EVAL_ROWS, NonTextTask
from glassformer.tasks.image_settings import side_of
from glassformer.tasks.losses import IGNORED
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource, classes_of, numbers_of

JUDGED = 500  # images that a classifier reads, as many of each class
TEMPERATURES = (1.0, 0.8)  # at which they are written
BASELINE_IMAGES = 2_000  # that the logistic regressions learn from at most
PALETTE_IMAGES = 2_000  # that a palette is made of at most
SHOWN_CAPTIONS = 10  # that a model keeps as examples
SHOWN = 10  # images of a sample; with captions 4
GROUP = 10  # images among whose captions the model finds the right one; as many groups


class ImageTokensSettings(TaskSettings):
    """[task] of `image_tokens`."""

    image_size: int | None = Field(default=None, ge=1, le=MAX_SIDE)
    """height and width that images are resized to; None: those of a named set, else of the first image"""
    condition: Literal["class", "caption"] = "class"
    """what an image is asked for with: its class, or a caption"""
    levels: int | None = Field(default=None, ge=2, le=MAX_LEVELS)
    """of grey; None: 16"""
    colours: int | None = Field(default=None, ge=2, le=MAX_LEVELS)
    """of a palette that is made of the training images; None: the images are grey"""
    patch_size: int = Field(default=1, ge=1, le=MAX_PATCH)
    """height and width in pixels of what a token stands for; from 2 on, each patch of training images has one"""
    drop_captions: float = Field(default=0.0, ge=0, lt=1)
    """share of the training captions that is left out whole, at random, so that `draw --guidance` can tell what a
    caption adds"""

    @model_validator(mode="after")
    def _one_kind(self) -> ImageTokensSettings:
        if self.levels and self.colours:
            raise UsageError(f"levels={self.levels} are of grey, and colours={self.colours}; leave one of them out")
        if self.drop_captions and self.condition != "caption":
            raise UsageError(f"drop_captions={self.drop_captions:g} is for task.condition=caption; leave it out")
        return self


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
        made = (p.size, p.levels, p.labels, *([p.palette, p.words] if p.palette or p.words else []))
        made = (*made, p.codes) if p.codes else made
        return self.digest(lambda image: (image.key, image.label), begin=repr(made))


class ImageTokens(NonTextTask):
    """Cross-entropy of every pixel of an image, in nats a pixel, given its class or caption and the pixels before it;
    with patches, of every patch.

    A batch is (inputs, targets), each (B, T) ids, T = n_words - 1 + pixels, or patches.

    Args:
        n_words: of a caption; a class is one word.
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

    def __init__(self, *, n_words: int = 1, **settings: Any):
        super().__init__(**settings)
        self.n_words = n_words

    @classmethod
    def arguments(cls, source: ImageTokenSource) -> dict[str, Any]:  # type: ignore[override]
        return {"n_words": source.processor.n_words}

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> ImageTokenSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("the grey levels and classes are the tokens; leave out the keys of [tokenizer]")
        captioned = asked.condition == "caption"
        images: LabelledImages
        known: CaptionedSet | ImageSet | None
        images, known = load_captioned(data.source) if captioned else load_images(data.source)
        if data.max_examples:
            images = {**images, "train": spread(images["train"], data.max_examples)}
        if opening.folder is not None:
            processor = ImageTokenProcessor.load(opening.folder)
            if bool(processor.words) != captioned:
                reads = "caption" if processor.words else "class"
                raise UsageError(f"the model reads a {reads}; use task.condition={reads}")
            if asked.patch_size not in (1, processor.patch_size):
                raise UsageError(f"the model's patches are of {processor.patch_size} pixels; leave out task.patch_size")
            if asked.drop_captions:
                processor = replace(processor, drops_captions=True)
        else:
            side = side_of(asked.image_size, images, known, choices)
            processor = cls._processor(images, asked, side)
        return ImageTokenSource(name=data.source, examples=images, processor=processor)

    @classmethod
    def _processor(cls, images: LabelledImages, asked: Any, side: int) -> ImageTokenProcessor:
        """A new one, with the palette and the words, or the classes, of the training images."""
        train, palette = images["train"], Palette()
        check_patch(asked.patch_size, (side, side))
        if asked.colours:
            palette = palette_of([image.image for image in spread(train, PALETTE_IMAGES)], (side, side), asked.colours)
        made: dict[str, Any] = {"size": (side, side), "levels": asked.levels or 16, "palette": palette}
        if asked.patch_size > 1:
            pixels = ImageTokenProcessor.make(labels=(), **made)
            levels_NHW = np.stack([pixels.levels_of(image.image) for image in train])
            made |= {"patch_size": asked.patch_size, "codes": codes_of(levels_NHW, asked.patch_size)}
        if asked.condition == "class":
            return ImageTokenProcessor.make(labels=classes_of((image.label for image in train), ()), **made)
        captions = [words_in(image.label) for image in train]
        longest = max(map(len, captions))
        if not longest or longest > MAX_WORDS:
            raise DataError(f"the longest caption has {longest} words; 1 to {MAX_WORDS} are read: shorten it")
        full = [image.label for image, words in zip(train, captions, strict=True) if len(words) == longest]
        words = sorted({word for caption in captions for word in caption})
        made |= {"words": words, "n_words": longest, "drops_captions": asked.drop_captions > 0}
        return ImageTokenProcessor.make(labels=spread(full, SHOWN_CAPTIONS), **made)

    @property
    def n_answers(self) -> int:
        return self.processor.n_piece_ids

    def model_fields(self) -> dict[str, Any]:
        return {"vocab_size": self.tokenizer.vocab_size, "block_size": self.length}

    @property
    def length(self) -> int:
        """Tokens that the model reads of an image: what stands before it, and all pixels or patches but the last."""
        p: ImageTokenProcessor = self.processor
        return p.n_words - 1 + p.n_pieces

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "labels": list(self.processor.labels)}

    def encode(self, split: str, T: int) -> list[Any]:
        """The ids of each image, the class or the caption first."""
        p, images = self.processor, self.source.examples[split]
        if p.words:
            known = set(p.words)
            changed = [not known.issuperset(found) or len(found) > p.n_words for found in map(_words, images)]
            self.source.notice(sum(changed), "caption", split, "lose words that no training caption has, or their end")
        return [p.encode(image.image, image.label, known_only=True).astype(np.uint16) for image in images]

    def collate(self, examples: Sequence[np.ndarray], random: np.random.Generator | None = None) -> Batch:
        """Images as ids -> a batch."""
        ids_BT = torch.from_numpy(np.stack(examples).astype(np.int64))
        targets_BT = ids_BT[:, 1:].clone()
        targets_BT[:, : self.n_words - 1] = IGNORED
        return ids_BT[:, :-1], targets_BT

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """As of any task on examples; of the training captions some are left out."""
        batches: Any = super().batches(split, rank, world_size)
        if split == "train" and self.settings.drop_captions:
            batches.collate, batches.by_chance = self.collate_dropping, True
        return batches  # type: ignore[no-any-return]

    def collate_dropping(self, examples: Sequence[np.ndarray], random: np.random.Generator) -> Batch:
        """As `collate`, a share of the captions empty."""
        n, rows = self.n_words, []
        for row in examples:
            dropped = random.random() < self.settings.drop_captions
            rows.append(np.concatenate([self.processor.no_condition, row[n:]]) if dropped else row)
        return self.collate(rows)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, T, V)."""
        logits: Tensor = model(batch[0])
        return logits

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        found = super().evaluate(model, split, whole=whole)
        loss, nats = found["loss"], math.log(2) * self.processor.patch_size**2  # a bit of each pixel
        bits = Metric(loss.value / nats, loss.n, loss.interval / nats)
        return Metrics({**found.values, "bits_per_dimension": bits}, found.windows)

    def sample(self, model: Any, step: int) -> list[Figure]:
        """An image of each of the first ten classes, or of four captions, at temperature 1; colours as their light."""
        p = self.processor
        labels = p.labels[: 4 if p.words else SHOWN]
        drawn = draw_images(model, p, labels, sampling=Sampling(seed=self.run.seed + step))
        whole = grid([[p.picture(each.ravel()) for each in drawn]]) / 255
        light = whole.mean(axis=2) if p.palette else whole
        title = (" | " if p.words else ", ").join(labels)
        return [HeatMap(title, light, [""] * len(light), [""] * light.shape[1], highest=1.0)]

    def extra_scores(self, model: Any, split: str = "validation") -> ImageScores:
        """Bits per dimension beside baselines, and whether images and conditions fit together: with classes, what a
        support vector machine reads in images that the model writes, and Bayes' answer by the model itself; with
        captions, the bits under the caption of another image, and Bayes' answer among ten captions."""
        p = self.processor
        train, test = (p.levels_in(self._ids(name)) for name in ("train", split))
        ours, _ = evaluate_rows(model, self.rows, self._batches(self.encoded(split, self.length)))
        costs = {"model": ours.sums.numpy(), "previous_pixel": previous_pixel_costs(train, test, p.levels)}
        if p.words:
            return self._caption_scores(model, split, costs)
        names = [np.array(numbers_of(self._labels(name), p.labels)) for name in ("train", "validation", split)]
        few = spread(range(len(train)), BASELINE_IMAGES)
        some, held_out = (train[few], names[0][few]), (p.levels_in(self._ids("validation")), names[1])
        costs["logistic"] = logistic_costs(some, held_out, (test, names[2]), p.levels)
        reader = read_by_svm(train, names[0])
        classes = np.arange(max(len(p.labels), JUDGED // len(p.labels) * len(p.labels))) % len(p.labels)
        asked = [p.labels[c] for c in classes]
        agreement = {}
        for temperature in TEMPERATURES:
            drawn = draw_images(model, p, asked, sampling=Sampling(temperature=temperature, seed=self.run.seed))
            agreement[temperature] = Share.of(
                (reader.predict(p.levels_in(drawn.reshape(len(drawn), -1))) == classes).tolist()
            )
        bayes = Share.of((class_log_probabilities(model, p, self._ids(split)).argmax(axis=1) == names[2]).tolist())
        read = Share.of((reader.predict(test) == names[2]).tolist())
        bits = {name: bits_per_dimension(cost, p.n_pixels) for name, cost in costs.items()}
        return ImageScores(len(test), bits, bayes, agreement, read)

    def _caption_scores(self, model: Any, split: str, costs: dict[str, np.ndarray]) -> ImageScores:
        p, rows, ids_ND = self.processor, self.encoded(split, self.length), self._ids(split)
        before = [row[: p.n_words] for row in rows]
        others = [np.concatenate([b, row[p.n_words :]]) for b, row in zip(before[1:] + before[:1], rows, strict=True)]
        swapped, _ = evaluate_rows(model, self.rows, self._batches(others))
        costs["other_caption"] = swapped.sums.numpy()
        found, captions = [], [p.tokenizer.decode(b.tolist()).replace("word:", "") for b in before]
        for start in spread(range(0, len(rows) - GROUP + 1, GROUP), GROUP):
            part = slice(start, start + GROUP)
            best = class_log_probabilities(model, p, ids_ND[part], captions[part]).argmax(axis=1)
            found += [captions[start + i] == captions[start + b] for i, b in enumerate(best)]
        bits = {name: bits_per_dimension(cost, p.n_pixels) for name, cost in costs.items()}
        return ImageScores(len(rows), bits, Share.of(found) if found else None)

    def _ids(self, split: str) -> np.ndarray:
        """The pixels or patches of a split as ids, (N, n_pieces)."""
        ids_NT = np.stack(self.encoded(split, self.length)).astype(np.int64)
        return ids_NT[:, self.processor.n_words :]

    def _labels(self, split: str) -> list[str]:
        return [image.label for image in self.source.examples[split]]

    def _batches(self, rows: Sequence[Any]) -> Iterable[Batch]:
        return (self.collate(rows[start : start + EVAL_ROWS]) for start in range(0, len(rows), EVAL_ROWS))


def _words(image: Any) -> list[str]:
    return words_in(image.label)
