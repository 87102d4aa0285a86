"""Images and texts: which caption is of which image? Two encoders learn it by contrast, as CLIP.

            "red apple"   "cat face"   "house"
    image 1     0.9          0.1         0.2        each row: which caption is of this image
    image 2     0.1          0.8         0.1        each column: which image is of this caption

The loss is the mean of both cross-entropies, over the pairs of a batch (Radford et al. 2021,
https://arxiv.org/abs/2103.00020, figure 3). Captions that are equal are no wrong answers to each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from glassformer.data.captions import load_captioned
from glassformer.data.encoding import tokenizer_from
from glassformer.data.example_splits import Example, spread
from glassformer.errors import UsageError
from glassformer.evaluation.retrieval import RetrievalScores, retrieval_scores
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Column, Figure, Table
from glassformer.generation.image_text import image_vectors, text_vectors
from glassformer.models.dual_encoder import DualEncoder
from glassformer.processors.image import ImageProcessor
from glassformer.processors.image_text import ImageTextProcessor, load_image_text_processor
from glassformer.processors.tokenizers import load_tokenizer
from glassformer.processors.tokenizers.special_tokens import END
from glassformer.tasks.base import Batch, Batches, Loss, Opening, Score
from glassformer.tasks.examples import NonTextTask
from glassformer.tasks.image_settings import ImageSettings, side_of
from glassformer.tasks.losses import padded
from glassformer.tasks.settings import Choice, TokenizerSettings
from glassformer.tasks.sources import SplitSource

VOCABULARY = 1024  # of a new tokenizer, unless another size is set
SHOWN = 5  # held-out images of a sample


@dataclass(kw_only=True)
class ImageTextSource(SplitSource):
    """Images with captions by split, and what makes arrays and ids of them."""

    processor: ImageTextProcessor

    @property
    def tokenizer(self) -> Any:
        return self.processor.tokenizer

    @cached_property
    def ids(self) -> dict[str, list[list[int]]]:
        """The ids of each caption."""
        encode = self.processor.encode_text
        return {split: [encode(image.label) for image in images] for split, images in self.examples.items()}

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation image, or how it is read, does."""
        return self.digest(lambda image: (image.key, image.label), begin=repr(self.processor.image))


class ImageText(NonTextTask):
    """Symmetric cross-entropy among the images and the captions of a batch.

    A batch is (images (B, channels, size, size) fp32, ids (B, T), lengths_B, numbers_B): equal captions have equal
    numbers.
    """

    holds: ClassVar[str] = "images with captions"
    Settings = ImageSettings
    reads: ClassVar[str] = "image_text"
    asks: ClassVar[str] = "similarity"
    # the loss rises while the right captions come first more often: it punishes being sure of a wrong one
    score: ClassVar[Score] = Score("val_accuracy", "higher")
    head: ClassVar[Mapping[str, Any]] = {}
    defaults: ClassVar[Mapping[str, Any]] = {}  # the captions decide the number of tokens
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    command: ClassVar[str] = "classify"
    source: ImageTextSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> ImageTextSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        images, known = load_captioned(data.source)
        if data.max_examples:
            images = {**images, "train": spread(images["train"], data.max_examples)}
        if opening.folder is not None:
            inherited = load_image_text_processor(opening.folder)
            if inherited is None:
                raise UsageError(f"{opening.folder}: no preprocessor_config.json; take a model with what reads images")
            processor = inherited
            asked.check_size(processor.image)
        else:
            size = side_of(asked.image_size, images, known, choices)
            reader = ImageProcessor(size=(size, size))
            processor = ImageTextProcessor(reader, _tokenizer(images["train"], opening.tokenizer, choices))
        return ImageTextSource(name=data.source, examples=images, processor=processor)

    @property
    def n_answers(self) -> int:
        return self.run.batch_size

    def model_fields(self) -> dict[str, Any]:
        image, longest = self.processor.image, max(len(ids) for rows in self.source.ids.values() for ids in rows)
        shape = {"image_size": image.size[0], "n_channels": image.n_channels}
        end = self.tokenizer.special_tokens[END]
        return {**shape, "vocab_size": self.tokenizer.vocab_size, "block_size": longest, "end_token": end}

    def encode(self, split: str, T: int) -> list[Any]:
        """(pixels (channels, size, size), ids, number of the caption)."""
        images, ids = self.source.examples[split], self.source.ids[split]
        self.source.notice(sum(len(row) > T for row in ids), "caption", split, f"cut to {T} tokens")
        numbers: dict[str, int] = {}
        encode = self.processor.encode
        return [
            (
                encode(image.image),
                row if len(row) <= T else [*row[: T - 1], row[-1]],
                numbers.setdefault(image.label, i),
            )
            for i, (image, row) in enumerate(zip(images, ids, strict=True))
        ]

    def collate(self, examples: Sequence[Any], random: np.random.Generator | None = None) -> Batch:
        """(pixels, ids, number) -> a batch."""
        images = torch.from_numpy(np.stack([pixels for pixels, _, _ in examples]))
        ids_BT, lengths_B = padded([ids for _, ids, _ in examples], 0)
        return images, ids_BT, lengths_B, torch.tensor([number for _, _, number in examples])

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """As of any task on examples, but not sorted by length; training images are changed at random if the settings
        say so."""
        batches: Any = super().batches(split, rank, world_size)
        batches.pool = 1
        if split == "train":
            self.settings.change_at_random(batches)
        return batches  # type: ignore[no-any-return]

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B images, B captions); a caption that equals an image's own, and is not its own, is left out."""
        images, ids_BT, lengths_B, numbers_B = batch
        logits_BB: Tensor = model(images, ids_BT, lengths_B)
        same_BB = numbers_B[:, None] == numbers_B
        return logits_BB.masked_fill(same_BB.fill_diagonal_(False), -torch.inf)

    def loss(self, model: DualEncoder, batch: Batch) -> Loss:
        """The mean of the cross-entropies of rows and columns, for each pair."""
        logits_BB = self.logits(model, batch).float()
        both = logits_BB.log_softmax(dim=1).diagonal() + logits_BB.log_softmax(dim=0).diagonal()
        temperature = model.logit_scale.detach().exp().sum(), 1
        return Loss(-both.sum() / 2, len(logits_BB), {"logit_scale": temperature})

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each pair, and whether its caption is the best of the batch for its image."""
        logits_BB = self.logits(model, batch).double()
        both_B = logits_BB.log_softmax(dim=1).diagonal() + logits_BB.log_softmax(dim=0).diagonal()
        right_B = logits_BB.argmax(dim=1) == torch.arange(len(logits_BB), device=logits_BB.device)
        return RowLosses(-both_B / 2, torch.ones_like(right_B, dtype=torch.int64), right_B.long())

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Some held-out images by their captions, and the captions that fit them best."""
        images = self.source.examples["validation"]
        captions = list(dict.fromkeys(image.label for image in images))
        chosen = [images[(step + i) % len(images)] for i in range(min(SHOWN, len(images)))]
        found = model.compare(
            image_vectors(model, self.processor, [image.image for image in chosen]),
            text_vectors(model, self.processor, captions),
        )
        best_BK = found.topk(min(3, len(captions)), dim=1).indices.tolist()
        rows = [(image.label, "; ".join(captions[i] for i in row)) for image, row in zip(chosen, best_BK, strict=True)]
        title = f"Held-out images, among {len(captions):,} captions"
        return [Table(title, [Column("caption"), Column("captions that fit best")], rows)]

    def extra_scores(self, model: Any, split: str = "validation") -> RetrievalScores:
        """Retrieval among all images and captions of the split, in both directions."""
        images = self.source.examples[split]
        captions = [image.label for image in images]
        vectors = image_vectors(model, self.processor, [image.image for image in images])
        cosines_NN = (vectors @ text_vectors(model, self.processor, captions).T).numpy()
        return retrieval_scores(cosines_NN, captions)


def _tokenizer(images: Sequence[Any], settings: TokenizerSettings, choices: list[Choice]) -> Any:
    """The one that is named, or learned from the training captions."""
    if settings.source_kind is not None or settings.specials is not None:
        raise UsageError("tokenizer.source_kind and tokenizer.specials have no use for captions; leave them out")
    if settings.path is not None:
        return load_tokenizer(settings.path)
    kind, size = settings.kind or "bpe", settings.vocab_size
    if settings.kind is None:
        choices.append(Choice("tokenizer.kind", kind, "subwords of the training captions"))
    if size is None and kind == "bpe":
        size = VOCABULARY
        choices.append(Choice("tokenizer.vocab_size", size, "at most"))
    texts = [Example(image.label.lower(), "") for image in images]
    return tokenizer_from(texts, kind, side="source", vocab_size=size, specials=(END,))
