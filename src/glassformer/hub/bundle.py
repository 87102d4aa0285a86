"""A model together with what turns raw data into its input and its output back into raw data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from glassformer.processors.tokenizers import Tokenizer


@dataclass
class Bundle:
    """What a model folder holds; `model, tokenizer = load(path)` unpacks it.

    Attributes:
        model: the model.
        processor: of what the model writes; of an encoder, of what it reads. A tokenizer for text, an `ImageProcessor`
            for images. None where the folder has none.
        source_processor: of what the model reads: mostly the same object, another one for a translator with two
            vocabularies, an `AudioProcessor` for a Whisper.
        token_processor: of a decoder whose tokens are more than text, what makes them of images and episodes: an
            `ImageTokenProcessor` or a `GeneralistProcessor`, with `processor` as its tokenizer.
        labels: the names of a classifier's classes, in the order of its logits.
    """

    model: Any
    processor: Any = None
    source_processor: Any = None
    labels: tuple[str, ...] = ()
    token_processor: Any = None

    @property
    def tokenizer(self) -> Any:
        """The processor if it is a tokenizer, else None."""
        return self.processor if isinstance(self.processor, Tokenizer) else None

    def __iter__(self) -> Iterator[Any]:
        return iter((self.model, self.tokenizer))

    def __getitem__(self, index: int) -> Any:
        return (self.model, self.tokenizer)[index]
