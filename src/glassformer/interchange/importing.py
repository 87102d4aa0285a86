"""Models from elsewhere, read, checked and written as a model folder of ours.

a folder of Hugging Face's        config.json and safetensors, in one file or in several
a GGUF file                       llama.cpp's; its numbers become fp32
a checkpoint of nanoGPT           ckpt.pt, read without running anything in it
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch

from glassformer.errors import ModelFolderError, UsageError
from glassformer.interchange.families import family_that_expresses
from glassformer.interchange.folder import load_model, save
from glassformer.interchange.gguf_reading import load_gguf
from glassformer.interchange.nanogpt import load_nanogpt
from glassformer.interchange.sentences import as_sentence_encoder
from glassformer.tokenizers import Tokenizer, load_tokenizer


class Imported(NamedTuple):
    """What came in: the folder it lies in now, its family's `model_type`, configuration, parameters, and the bytes of
    its weights."""

    folder: Path
    model_type: str
    config: Any
    n_parameters: int
    n_bytes: int


def import_model(
    path: str | os.PathLike[str], into: str | os.PathLike[str], *, tokenizer: Tokenizer | None = None
) -> Imported:
    """Read a model, see that every tensor has its place and that a forward pass is finite, and write it to `into`.

    Args:
        tokenizer: in place of the one that comes with it; nanoGPT's checkpoints have none.

    Raises:
        ModelFolderError: it cannot be read, or gives numbers that are not finite; nothing is written then.
        TokenizerError: its tokenizer is missing or damaged.
        MissingExtraError: an optional package is needed.
    """
    path = Path(path)
    model, own = open_foreign(path, with_tokenizer=tokenizer is None)
    tokenizer = tokenizer or own
    if tokenizer is not None and tokenizer.vocab_size > model.config.vocab_size:
        raise ModelFolderError(
            f"{path}: {tokenizer.vocab_size:,} tokens in the tokenizer, {model.config.vocab_size:,} logits in the "
            "model; they do not belong together"
        )
    check_finite(model, path)
    save(into, model, tokenizer)
    parameters = {id(p): p for p in model.parameters()}.values()
    return Imported(
        folder=Path(into),
        model_type=family_that_expresses(model.config).model_type,
        config=model.config,
        n_parameters=sum(p.numel() for p in parameters),
        n_bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


def open_foreign(path: Path, *, with_tokenizer: bool = True) -> tuple[Any, Tokenizer | None]:
    """The model at a path, whatever form it has, and its tokenizer if it brings one.

    Raises: as `import_model`.
    """
    if path.suffix == ".gguf" or begins_with(path, b"GGUF"):
        return load_gguf(path)
    if path.is_file() and path.suffix in (".pt", ".pth", ".ckpt"):
        return load_nanogpt(path)
    if path.is_file():
        raise UsageError(f"{path}: a folder with config.json, a .gguf file or nanoGPT's ckpt.pt is needed")
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such file or folder")
    model = load_model(path)
    speaks = reads_text(model.config) or hasattr(model.config, "decoder")
    tokenizer = load_tokenizer(path) if with_tokenizer and speaks else None
    as_sentence_encoder(model, tokenizer, path)
    return model, tokenizer


@torch.inference_mode()
def check_finite(model: Any, where: str | os.PathLike[str]) -> None:
    """Every parameter, and one forward pass over a few tokens where the model reads text.

    Raises:
        ModelFolderError: one of them is or gives a number that is not finite.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelFolderError(f"{where}: {name} holds numbers that are not finite; the weights are damaged")
    if not reads_text(model.config):
        return
    sources = (
        getattr(model.config, "source_vocab_size", None) or getattr(model.config, "encoder", model.config).vocab_size
    )
    ids_BT = torch.arange(min(8, model.config.block_size)).remainder(min(sources, model.config.vocab_size)).unsqueeze(0)
    inputs = (ids_BT, ids_BT) if hasattr(model, "encode") else (ids_BT,)
    if not torch.isfinite(model(*inputs)).all():
        raise ModelFolderError(f"{where}: a forward pass gives numbers that are not finite; the weights are damaged")


def reads_text(config: Any) -> bool:
    """Whether what a model takes in is text, and not patches of an image or frames of sound."""
    return getattr(getattr(config, "encoder", config), "stem", "text") == "text"


def begins_with(path: Path, magic: bytes) -> bool:
    """Whether these are the first bytes of a file."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic
