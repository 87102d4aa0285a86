"""What a processor is: it turns raw data (a text, an image) into the array that a model reads, and back.

A processor is saved in the model folder, in the files that Hugging Face's own processors read:

    tokenizer    text     tokenizer.json, tokenizer_config.json      processors/tokenizers/
    image        images   preprocessor_config.json                   processors/image.py
    sound        frames   preprocessor_config.json                   processors/audio.py
    vectors      numbers  preprocessor_config.json                   processors/vectors.py
    image tokens images   both: pixels are words of a tokenizer      processors/image_tokens.py
    trajectory   episodes preprocessor_config.json                   processors/trajectory.py
    generalist   text, images, episodes   both, and generalist.json  processors/generalist.py
    set          records  preprocessor_config.json                   processors/sets.py
    graph        SMILES   preprocessor_config.json                   processors/molecules.py
    characters   speech   preprocessor_config.json                   processors/speech.py
    image, text  both     both                                       processors/image_text.py

A new kind of input is one file here and one line in `PROCESSORS`. A processor with two more methods serves every
command and view without further code:

    arguments(encoded)   what the model is called with for several encoded inputs: arrays by the names of its arguments
    names(encoded)       a name for each place of one of them, to be shown
    row_names            what each row of the model's table of ids stands for
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path
from typing import Any, Protocol

from glassformer.errors import ModelFolderError
from glassformer.processors.preprocessor_file import FILE, MAX_JSON_BYTES
from glassformer.text_files import read_json


class Processor(Protocol):
    """Raw data to arrays and back."""

    def encode(self, raw: Any, /) -> Any:
        """The array that a model reads."""

    def decode(self, array: Any, /) -> Any:
        """The raw data of an array; the inverse of `encode` as far as nothing was lost."""

    def save(self, folder: str | os.PathLike[str], /) -> None:
        """Write the files that `load_processor` reads."""


PROCESSORS: dict[str, str] = {
    "text": "glassformer.processors.tokenizers:load_tokenizer",
    "frames": "glassformer.processors.audio:load_audio_processor",
    "patches": "glassformer.processors.image:load_image_processor",
    "trajectory": "glassformer.processors.trajectory:load_trajectory_processor",
    "vectors": "glassformer.processors.vectors:load_vector_processor",
    "set": "glassformer.processors.sets:load_set_processor",
    "graph": "glassformer.processors.molecules:load_molecule_processor",
    "characters": "glassformer.processors.speech:load_speech_processor",
    "image_text": "glassformer.processors.image_text:load_image_text_processor",
}
"""What loads the processor from a model folder, as "module:function", by what a model reads (`model.reads`)."""


TOKEN_PROCESSORS: dict[str, tuple[str, str]] = {
    "generalist.json": ("GeneralistProcessor", "glassformer.processors.generalist"),
    "preprocessor_config.json": ("ImageTokenProcessor", "glassformer.processors.image_tokens"),
}
"""What makes tokens of more than text, and its module, by the file that a model folder has then."""


def load_processor(reads: str, folder: str | os.PathLike[str]) -> Any:
    """The processor of what a model reads, from its folder; None where there is none.

    Raises:
        GlassformerError: it is damaged, or missing where it must be there.
    """
    if reads not in PROCESSORS:
        return None
    return _named(PROCESSORS[reads])(folder)


def load_token_processor(folder: str | os.PathLike[str]) -> Any:
    """What makes tokens of images and episodes for a decoder, from its folder; None where its tokens are text alone.

    Raises:
        ModelFolderError: it is damaged.
    """
    for file, (kind, module) in TOKEN_PROCESSORS.items():
        if not (Path(folder) / file).is_file():
            continue
        given = read_json(Path(folder) / file, ModelFolderError, most=MAX_JSON_BYTES).get("processor_type")
        if given == kind or file != FILE:  # other programs have a file of this name too
            return _named(f"{module}:{kind}").load(folder)
    return None


def _named(place: str) -> Any:
    """What stands at "module:name"."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
