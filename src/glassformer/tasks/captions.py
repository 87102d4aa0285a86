"""Captions: an image has been read; word by word, how surprising is what is to be seen on it?

pixels ──patches──► encoder ──► a vector for each patch
                                   │ cross-attention
<start> a large red seven ──► decoder ──► a large red seven, top left <end>

The encoder-decoder of translation, with a picture in the place of the sentence (Vinyals et al. 2014,
https://arxiv.org/abs/1411.4555; Xu et al. 2015 look at parts of it, https://arxiv.org/abs/1502.03044).
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

from glassformer.data.captions import CAPTIONED_SETS, load_captioned
from glassformer.data.examples import spread
from glassformer.data.images import LabelledImage
from glassformer.errors import DataError
from glassformer.evaluation.captions import baselines, caption_scores
from glassformer.generation.caption import caption
from glassformer.processors.image import ImageProcessor
from glassformer.processors.tokenizers import load_tokenizer
from glassformer.tasks.base import Batch, Batches, Opening
from glassformer.tasks.examples import shortened, special_of
from glassformer.tasks.image_settings import ImageSettings, side_of
from glassformer.tasks.losses import IGNORED, padded
from glassformer.tasks.settings import Choice, DataSettings
from glassformer.tasks.sources import ExampleSource
from glassformer.tasks.translate import Scored, Translate, TranslateSettings


class CaptionSettings(ImageSettings, TranslateSettings):
    """[task] of `captions`."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """the share of each target that is spread over the vocabulary"""


@dataclass(kw_only=True)
class CaptionSource(ExampleSource):
    """Images with captions by split, the tokenizer of these, and (as `source_tokenizer`) what makes arrays of those."""

    source_tokenizer: Any

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation image, its caption, or how both are read does."""
        begin = repr((self.source_tokenizer, self.tokenizer.hash))
        return self.digest(lambda image: (image.key, image.label), begin=begin)

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that the images decide."""
        p = self.source_tokenizer
        return {**super().fields(), "image_size": p.size[0], "n_channels": p.n_channels}


class Captions(Translate):
    """Cross-entropy of a caption given its image, in nats a token.

    A batch is (images (B, channels, size, size) fp32, target_in_BT, target_out_BT).
    """

    Settings: ClassVar = CaptionSettings
    reads: ClassVar[str] = "patches"
    defaults: ClassVar[Mapping[str, Any]] = {"block_size": 64}
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "caption"
    default_kind: ClassVar[tuple[str, str]] = ("bpe", "subwords of the captions")
    source: CaptionSource

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> CaptionSource:  # type: ignore[override]
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        cls.check_no_source(opening.tokenizer, "an image")
        images, known = load_captioned(data.source)
        if data.max_examples:
            images = {**images, "train": spread(images["train"], data.max_examples)}
        special: dict[str, int] = {}
        if opening.folder is not None:
            tokenizer, processor = load_tokenizer(opening.folder), ImageProcessor.load(opening.folder)
            asked.check_size(processor)
            special = special_of(opening.folder)
        else:
            tokenizer = cls.writer([image.label for image in images["train"]], opening.tokenizer, choices)
            side = side_of(asked.image_size, images, known, choices)
            processor = ImageProcessor(size=(side, side))
        return CaptionSource(
            name=data.source, examples=images, tokenizer=tokenizer, source_tokenizer=processor, special=special
        )

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        raise DataError(f"{data.source} holds images with captions and no text")

    @property
    def longest(self) -> int:
        """Tokens of a caption, which 19 of 20 of the first training examples do not exceed."""
        texts = [image.label for image in self.source.examples["train"][:1000]]
        return int(np.quantile([len(ids) for ids in self.tokenizer.encode_documents(texts)], 0.95))

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids of the caption, pixels), in this order so that batches are sorted by the caption. A training caption of
        more than T tokens is left out, a held-out one is cut."""
        images, reader = self.source.examples[split], self.source.source_tokenizer
        targets = self.tokenizer.encode_documents([image.label for image in images])
        long = sum(len(ids) >= T for ids in targets)
        self.source.notice(
            long, "caption", split, f"longer than {T} tokens " + ("left out" if split == "train" else "cut")
        )
        rows = zip(targets, images, strict=True)
        if split == "train":
            rows = ((ids, image) for ids, image in rows if len(ids) < T)  # type: ignore[assignment]
        found = [(ids[: T - 1], reader.encode(image.image)) for ids, image in rows]
        if not found:
            raise DataError(f"every caption is longer than {T} tokens; try a larger model.block_size")
        return found

    def collate(self, examples: Sequence[Any], random: np.random.Generator | None = None) -> Batch:
        """(ids, pixels) -> a batch."""
        images = torch.from_numpy(np.stack([pixels for _, pixels in examples]))
        target_in_BT, _ = padded([[self.start_token, *ids] for ids, _ in examples], self.pad_token)
        target_out_BT, _ = padded([[*ids, self.end_token] for ids, _ in examples], IGNORED)
        return images, target_in_BT, target_out_BT

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """As of any task on examples; training images are changed at random if the settings say so."""
        batches = super().batches(split, rank, world_size)
        if split == "train":
            self.settings.change_at_random(batches, place=1)
        return batches

    def inputs(self, batch: Batch) -> tuple[Tensor, Tensor, None]:
        return batch[0], batch[1], None

    # ---- what it writes ----

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """What the model writes (the most probable token each time), and the target."""
        ids, pixels = example
        reader = self.source.source_tokenizer
        (answer,) = caption(model, self.tokenizer, reader, [reader.decode(pixels)])
        return f"model:  {shortened(answer.text)}\ntarget: {shortened(self.tokenizer.decode(ids.tolist()))}"

    def score_answers(self, model: Any, *, split: str = "test", beam: int = 1, limit: int | None = None) -> Scored:
        """The share of captions of a split that are right, beside the most frequent training caption and that of the
        nearest training image.

        Raises: as `Translate.score_answers`.
        """
        asked: list[LabelledImage] = self.answerable(split, limit, lambda image: image.label)
        reader, train = self.source.source_tokenizer, self.source.examples["train"]
        answers = caption(model, self.tokenizer, reader, [image.image for image in asked], beam=beam)
        pixels = [[reader.encode(image.image) for image in images] for images in (train, asked)]
        written = {"model": [each.text for each in answers]}
        written |= baselines(pixels[0], [image.label for image in train], pixels[1])
        known, references = CAPTIONED_SETS.get(self.source.name), [image.label for image in asked]
        scores = caption_scores(written, references, known.described if known else None)
        return Scored(scores, [image.key for image in asked], answers, [[text] for text in references])
