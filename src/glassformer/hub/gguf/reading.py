"""A GGUF file as a model and its tokenizer."""

from __future__ import annotations

import os
from typing import Any

from glassformer.errors import GlassformerError, MissingExtraError, ModelFolderError, known_names, one_line
from glassformer.hub.folder import set_generation_settings
from glassformer.hub.gguf.architectures import ARCHITECTURES
from glassformer.hub.gguf.file import read_gguf
from glassformer.hub.gguf.settings import settings_from_gguf
from glassformer.hub.gguf.tokenizer import tokenizer_from_gguf
from glassformer.hub.state_dict import model_of
from glassformer.processors.tokenizers import Tokenizer


def load_gguf(path: str | os.PathLike[str]) -> tuple[Any, Tokenizer]:
    """The model of a GGUF file, its numbers turned into fp32, and its tokenizer.

    Raises:
        ModelFolderError: it is damaged, or of an architecture, a number format or with a tokenizer that is not read.
        MissingExtraError: without the `gguf` package.
    """
    file = read_gguf(path)
    try:
        name = file.fields.get("general.architecture")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            known = known_names(ARCHITECTURES)
            raise ModelFolderError(f"its architecture {name!r} is not one that glassformer reads; {known}")
        if (parts := file.fields.get("split.count", 1)) != 1:
            raise ModelFolderError(
                f"one of {parts} parts of a file; put them together first (llama.cpp: llama-gguf-split --merge)"
            )
        architecture = ARCHITECTURES[name]
        tokenizer = tokenizer_from_gguf(file.fields)
        settings = settings_from_gguf(file.fields, tokenizer)
        words = architecture.words(file.fields, {name: tensor.shape for name, tensor in file.tensors.items()})
        config = architecture.family.read_config(words)
        needed = [there for row in architecture.family.table(config) for there in row.theirs if there is not None]
        names = architecture.names(needed, config.n_layer)
        theirs, left = {}, dict(file.tensors)
        for there, here in names.items():
            if here not in left:
                raise ModelFolderError(f"the tensor {here} is missing; take another file of this model")
            tensor = left.pop(here)
            try:
                theirs[there] = architecture.layout(there, words).read(tensor.dequantised())
            except RuntimeError:  # it cannot be turned into our form
                raise ModelFolderError(f"the tensor {here} cannot have the shape {tensor.shape}") from None
        if left:
            raise ModelFolderError(f"{len(left)} tensors have no place in a {name}, the first is {next(iter(left))}")
    except MissingExtraError:
        raise
    except GlassformerError as error:  # also a size that a configuration refuses: the file is to blame
        raise ModelFolderError(f"{path}: {one_line(error)}") from None
    model = model_of(architecture.family, config, theirs, path)
    set_generation_settings(model, tokenizer, settings)
    return model, tokenizer
