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
        """Write the files that `load_processor` reads."""


class Entry(NamedTuple):
    """How a kind of processor is loaded from a model folder: `load(folder)`, as "module:name".

    file: without it a folder has no such processor. None: a model that reads this must have one, and `load` raises.
    """

    load: str
    file: str | None = None


PROCESSORS: dict[str, Entry] = {
    "text": Entry("glassformer.processors.tokenizers:load_tokenizer"),
    "patches": Entry("glassformer.processors.image:load_image_processor", "preprocessor_config.json"),
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
    module, _, name = entry.load.partition(":")
    return getattr(importlib.import_module(module), name)(folder)
