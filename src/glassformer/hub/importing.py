"""Models of other programs, read, checked and written as a model folder of ours.

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
from glassformer.hub.adapters import load_adapter
from glassformer.hub.bundle import Bundle
from glassformer.hub.ctranslate2.reading import is_ctranslate2, load_ctranslate2
from glassformer.hub.families.registry import family_for
from glassformer.hub.folder import check_vocabulary, open_folder, save
from glassformer.hub.gguf.reading import load_gguf
from glassformer.hub.nanogpt import load_nanogpt
from glassformer.layers.lora import merge_lora
from glassformer.models import stacks_of
from glassformer.processors.tokenizers import Tokenizer

Files = dict[str, dict[str, Any]]
"""JSON files that go with a model: name and content."""


class Imported(NamedTuple):
    """What was imported. model_type: of its family. n_bytes: of its weights."""

    folder: Path
    model_type: str
    config: Any
    n_parameters: int
    n_bytes: int


def import_model(
    path: str | os.PathLike[str],
    into: str | os.PathLike[str],
    *,
    tokenizer: Tokenizer | None = None,
    adapter: str | os.PathLike[str] | None = None,
) -> Imported:
    """Read a model, check that every tensor has its place and that a forward pass is finite, and write it to `into`.

    Args:
        tokenizer: in place of the one that comes with it; nanoGPT's checkpoints have none. adapter: a LoRA adapter
            that is merged into the weights.

    Raises:
        ModelFolderError: it cannot be read, or gives numbers that are not finite; nothing is written then.
        TokenizerError: its tokenizer is missing or damaged.
        MissingExtraError: an optional package is needed.
    """
    path = Path(path)
    bundle, files = open_foreign(path, with_processor=tokenizer is None)
    bundle.processor = tokenizer or bundle.processor
    model = bundle.model
    if adapter is not None:
        load_adapter(adapter, model)
        merge_lora(model)
    if bundle.tokenizer is not None:
        check_vocabulary(path, bundle.tokenizer, model.config.vocab_size, "logits")
    check_finite(model, path)
    save(into, bundle, beside=files)
    parameters = {id(p): p for p in model.parameters()}.values()
    return Imported(
        folder=Path(into),
        model_type=family_for(model.config).model_type,
        config=model.config,
        n_parameters=sum(p.numel() for p in parameters),
        n_bytes=sum(p.numel() * p.element_size() for p in parameters),
    )


def open_foreign(path: Path, *, with_processor: bool = True) -> tuple[Bundle, Files]:
    """The model at a path, whatever form it has, and the files that go with it. Raises as `import_model`."""
    if is_gguf(path):
        return Bundle(*load_gguf(path)), {}
    if path.is_file() and path.suffix in (".pt", ".pth", ".ckpt"):
        return Bundle(*load_nanogpt(path)), {}
    if path.is_file():
        raise UsageError(f"{path}: a folder with config.json, a .gguf file or nanoGPT's ckpt.pt is needed")
    if not path.is_dir():
        raise UsageError(f"{path}: there is no such file or folder")
    if is_ctranslate2(path):
        model, tokenizer, files = load_ctranslate2(path, with_tokenizer=with_processor)
        return Bundle(model, tokenizer), files
    return open_folder(path, with_processor=with_processor), {}


@torch.inference_mode()
def check_finite(model: Any, where: str | os.PathLike[str]) -> None:
    """Raise `ModelFolderError` if a parameter, or an output for a few tokens, frames or pixels, is not finite."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            raise ModelFolderError(f"{where}: {name} holds numbers that are not finite; the weights are damaged")
    if not torch.isfinite(model(*_small_input(model))).all():
        raise ModelFolderError(f"{where}: a forward pass gives numbers that are not finite; the weights are damaged")


def _small_input(model: Any) -> tuple[Tensor, ...]:
    """A few tokens, frames of sound or an image, as the model takes them."""
    config = model.config
    encoder = stacks_of(config)[0]
    ids_BT = torch.arange(min(8, config.block_size)).remainder(config.vocab_size).unsqueeze(0)
    reads = config.reads
    if reads == "text":
        source = ids_BT.remainder(getattr(config, "source_vocab_size", None) or encoder.vocab_size)
    elif reads == "frames":
        n_frames = 2 * min(8, encoder.block_size)
        source = torch.linspace(-1, 1, encoder.n_mels * n_frames).view(1, encoder.n_mels, n_frames)
    elif reads == "trajectory":
        steps = torch.linspace(-1, 1, min(3, config.block_size // 3)).to(next(model.parameters()).dtype)[None]
        sizes = config.state_size, config.action_size
        return steps, *(steps[..., None].expand(-1, -1, size) for size in sizes), torch.zeros_like(steps).long()
    else:
        shape = (1, encoder.n_channels, encoder.image_size, encoder.image_size)
        source = torch.linspace(-1, 1, encoder.n_channels * encoder.image_size**2).view(shape)
    if source.is_floating_point():
        source = source.to(next(model.parameters()).dtype)
    if "similarity" in model.answers:
        ids_BT[:, -1] = config.end_token
        return source, ids_BT
    return (source, ids_BT) if "target" in model.answers else (source,)


def is_gguf(path: Path) -> bool:
    """Whether it is a GGUF file, by its name or its first bytes."""
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return path.suffix == ".gguf" or file.read(4) == b"GGUF"
