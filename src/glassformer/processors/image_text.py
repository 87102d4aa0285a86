"""Images and texts for a model that compares them: the processors of both, in one model folder.

    processor = load_image_text_processor("runs/emoji-names-1/model")
    processor.encode("heart.png")              # (channels, height, width)
    processor.encode_text("A red heart")       # ids, in small letters, with the token that ends a text

The files are those of Hugging Face's CLIP: preprocessor_config.json and tokenizer.json.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassformer.errors import ModelFolderError
from glassformer.processors.image import ImageProcessor, load_image_processor
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.special_tokens import END


@dataclass(frozen=True)
class ImageTextProcessor:
    """image: of images. tokenizer: of texts, with a token `<end>`, which stands behind each.

    Raises:
        ModelFolderError: the tokenizer has no such token.
    """

    image: ImageProcessor
    tokenizer: Tokenizer

    def __post_init__(self) -> None:
        if END not in self.tokenizer.special_tokens:
            raise ModelFolderError(f"the tokenizer has no token {END}, which ends a text; take that of this model")

    def encode(self, image: Any) -> np.ndarray:
        """The array of an image; raises as `ImageProcessor.encode`."""
        return self.image.encode(image)

    def encode_text(self, text: str) -> list[int]:
        """The ids of a text."""
        return [*self.tokenizer.encode(text.lower()), self.tokenizer.special_tokens[END]]

    def decode(self, pixels_CHW: Any) -> Any:
        """The image of an array as a `PIL.Image`."""
        return self.image.decode(pixels_CHW)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the files of both."""
        self.tokenizer.save(folder)
        self.image.save(folder)


def load_image_text_processor(folder: str | os.PathLike[str]) -> ImageTextProcessor | None:
    """The processors of a model folder; None where it has none of images.

    Raises:
        GlassformerError: one is missing or damaged.
    """
    image = load_image_processor(folder)
    return None if image is None else ImageTextProcessor(image, load_tokenizer(folder))
