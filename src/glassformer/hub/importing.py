"""Models from elsewhere, read, checked and written as a model folder of ours.

a folder of Hugging Face's        config.json and safetensors, in one file or in several
a GGUF file                       llama.cpp's; its numbers become fp32
a folder of CTranslate2's         a Whisper as faster-whisper has it; its numbers become fp32
a checkpoint of nanoGPT           ckpt.pt, read without running anything in it
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glassformer.errors import ModelFolderError, UsageError
from glassformer.hub.ctranslate2.reading import is_ctranslate2, load_ctranslate2
from glassformer.hub.families.registry import family_for
from glassformer.hub.folder import (
    check_vocabulary,
    load_model,
    own_source_tokenizer,
    reads_text,
    save,
    writes_text,
)
from glassformer.hub.gguf.reading import load_gguf
from glassformer.hub.nanogpt import load_nanogpt
from glassformer.hub.sentence_transformers import apply_text_limits
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer


class Imported(NamedTuple):
    """What came in: the folder it lies in now, its family's `model_type`, configuration, parameters, and the bytes of
    its weights."""

    folder: Path
    model_type: str
    config: Any
    n_parameters: int
    n_bytes: int


class Foreign(NamedTuple):
    """A model from elsewhere, its tokenizer if it brings one, and JSON files that go with it: name and content;
    and the tokenizer of what it reads, if that is another one."""

    model: Any
    tokenizer: Tokenizer | None
    beside: dict[str, dict[str, Any]] | None = None
    source_tokenizer: Tokenizer | None = None


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
    model, own, beside, source_tokenizer = open_foreign(path, with_tokenizer=tokenizer is None)
    tokenizer = tokenizer or own
    if tokenizer is not None:
        check_vocabulary(path, tokenizer, model.config.vocab_size, "logits")
    check_finite(model, path)
    save(into, model, tokenizer, source_tokenizer, beside=beside)
    parameters = {id(p): p for p in model.parameters()}.values()
    return Imported(
        folder=Path(into),
        model_type=family_for(model.config).model_type,
        config=model.config,
        n_parameters=sum(p.numel() for p in parameters),
        n_bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


def open_foreign(path: Path, *, with_tokenizer: bool = True) -> Foreign:
    """The model at a path, whatever form it has, and what comes with it.

    Raises: as `import_model`.
    """
    if path.suffix == ".gguf" or is_gguf(path):
        return Foreign(*load_gguf(path))
    if path.is_file() and path.suffix in (".pt", ".pth", ".ckpt"):
        return Foreign(*load_nanogpt(path))
    if path.is_file():
        raise UsageError(f"{path}: a folder with config.json, a .gguf file or nanoGPT's ckpt.pt is needed")
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such file or folder")
    if is_ctranslate2(path):
        return Foreign(*load_ctranslate2(path, with_tokenizer=with_tokenizer))
    model = load_model(path)
    has_text = reads_text(model.config) or writes_text(model.config)
    tokenizer = load_tokenizer(path) if with_tokenizer and has_text else None
    source_tokenizer = own_source_tokenizer(path) if tokenizer is not None else None
    if tokenizer is not None:
        apply_text_limits(tokenizer, model.config, path)
    return Foreign(model, tokenizer, source_tokenizer=source_tokenizer)


@torch.inference_mode()
def check_finite(model: Any, where: str | os.PathLike[str]) -> None:
    """Every parameter, and one forward pass over a few tokens or frames of sound.

    Raises:
        ModelFolderError: one of them is or gives a number that is not finite.
    """
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelFolderError(f"{where}: {name} holds numbers that are not finite; the weights are damaged")
    inputs = _a_few(model)
    if inputs is not None and not torch.isfinite(model(*inputs)).all():
        raise ModelFolderError(f"{where}: a forward pass gives numbers that are not finite; the weights are damaged")


def _a_few(model: Any) -> tuple[Tensor, ...] | None:
    """What a model can read; None for what sees."""
    config = model.config
    encoder = getattr(config, "encoder", config)
    ids_BT = torch.arange(min(8, config.block_size)).remainder(config.vocab_size).unsqueeze(0)
    if reads_text(config):
        sources = getattr(config, "source_vocab_size", None) or encoder.vocab_size
        ids_BT = ids_BT.remainder(sources)
        return (ids_BT, ids_BT) if "target" in model.answers else (ids_BT,)
    if config.reads != "frames":
        return None
    n_frames = 2 * min(8, encoder.block_size)
    frames_BMF = torch.linspace(-1, 1, encoder.n_mels * n_frames).view(1, encoder.n_mels, n_frames)
    frames_BMF = frames_BMF.to(next(model.parameters()).dtype)
    return (frames_BMF, ids_BT) if "target" in model.answers else (frames_BMF,)


def is_gguf(path: Path) -> bool:
    """Whether it is a file of llama.cpp, by its name or its first bytes."""
    return path.is_file() and (path.suffix == ".gguf" or begins_with(path, b"GGUF"))


def begins_with(path: Path, magic: bytes) -> bool:
    """Whether these are the first bytes of a file."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(len(magic)) == magic
