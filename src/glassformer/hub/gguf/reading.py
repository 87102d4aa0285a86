"""A GGUF file as a model and its tokenizer."""

from __future__ import annotations

import os
from typing import Any

from glassformer.errors import GlassformerError, MissingExtraError, ModelFolderError, known_names, one_line
from glassformer.hub.folder import set_generation_settings
from glassformer.hub.generation_config import parsed
from glassformer.hub.gguf.architectures import ARCHITECTURES
from glassformer.hub.gguf.file import read_gguf
from glassformer.hub.gguf.tokenizer import tokenizer_from_gguf
from glassformer.hub.state_dict import model_of
from glassformer.models import GenerationSettings
from glassformer.processors.tokenizers import Tokenizer

# Ends of a text, of a turn (eot) and of a message (eom): llama.cpp stops at each of them.
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
# Settings of generation and their names under `general.sampling`; rules about tokens have no place in a header.
SAMPLING = {
    "temperature": "temp",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "repetition_penalty": "penalty_repeat",
}


def load_gguf(path: str | os.PathLike[str]) -> tuple[Any, Tokenizer]:
    """The model of a GGUF file, its numbers turned into fp32, and its tokenizer. Raises `ModelFolderError` if it is
    damaged, or of an architecture, a number format or with a tokenizer that is not read. Raises `MissingExtraError`
    without the `gguf` package."""
    file = read_gguf(path)
    try:
        name = file.fields.get("general.architecture")
        if not isinstance(name, str) or name not in ARCHITECTURES:
            known = known_names(ARCHITECTURES)
            raise ModelFolderError(f"its architecture {name!r} is not one that glassformer reads; {known}")
        if (parts := file.fields.get("split.count", 1)) != 1:
            raise ModelFolderError(f"one of {parts} parts; merge them first (llama.cpp: llama-gguf-split --merge)")
        architecture = ARCHITECTURES[name]
        tokenizer = tokenizer_from_gguf(file.fields)
        settings = _settings_from_gguf(file.fields, tokenizer)
        words = architecture.words(file.fields, {name: tensor.shape for name, tensor in file.tensors.items()})
        config = architecture.family.read_config(words)
        names = architecture.names(sorted(architecture.family.names(config)), config.n_layer)
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


def _settings_from_gguf(fields: dict[str, Any], tokenizer: Tokenizer) -> GenerationSettings:
    """The settings of generation in a header. Raises `ModelFolderError` for a value of the wrong kind."""
    ends = [fields.get(f"tokenizer.ggml.{name}") for name in ENDS]
    known = [end for end in ends if isinstance(end, int) and end < tokenizer.vocab_size]
    given: dict[str, Any] = {"eos_token_id": list(dict.fromkeys(known))} if len(set(known)) > 1 else {}
    if given:  # otherwise the tokenizer's own tokens suffice
        begins = fields.get("tokenizer.ggml.bos_token_id")
        given["bos_token_id"] = begins if isinstance(begins, int) and begins < tokenizer.vocab_size else None
    for ours, theirs in SAMPLING.items():
        value = fields.get(f"general.sampling.{theirs}")
        given[ours] = round(value, 6) if isinstance(value, float) else value  # they are kept in 32 bits
    return parsed(given, where="its header")
