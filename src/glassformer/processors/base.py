"""What a processor is: it turns raw data (a text, an image) into the array that a model reads, and back.

A processor is saved in the model folder, in the files that Hugging Face's own processors read:

    tokenizer    text     tokenizer.json, tokenizer_config.json      processors/tokenizers/
    image        images   preprocessor_config.json                   processors/image.py

A new kind of input is one file here and one line in `PROCESSORS`.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Processor(Protocol):
    """Raw data to arrays and back."""

    def encode(self, raw: Any, /) -> Any:
        """The array that a model reads."""

    def decode(self, array: Any, /) -> Any:
        """The raw data of an array; the inverse of `encode` as far as nothing was lost."""

    def save(self, folder: str | os.PathLike[str], /) -> None:
        """Write the files that `load` reads."""

    @classmethod
    def load(cls, folder: str | os.PathLike[str], /) -> Processor:
        """The processor of a model folder. Raises `GlassformerError` where it is missing or damaged."""


class Entry(NamedTuple):
    """Where a class of processors stands, and the file in a model folder without which there is none.

    file: None: a model that reads this must have one, so `load` says what is missing.
    """

    module: str
    name: str
    file: str | None = None


PROCESSORS: dict[str, Entry] = {
    "text": Entry("glassformer.processors.tokenizers", "Tokenizer"),
    "patches": Entry("glassformer.processors.image", "ImageProcessor", "preprocessor_config.json"),
}
"""By what a model reads (`model.reads`)."""


def load_processor(reads: str, folder: str | os.PathLike[str]) -> Any:
    """The processor of what a model reads, from its folder; None where there is none.

    Raises:
        GlassformerError: it is damaged, or missing where it must be there.
    """
    entry = PROCESSORS.get(reads)
    if entry is None or (entry.file is not None and not (Path(folder) / entry.file).is_file()):
        return None
    return getattr(importlib.import_module(entry.module), entry.name).load(folder)
