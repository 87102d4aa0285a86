"""Safetensors files: written whole or not at all, read with one clear line about what is wrong."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.files import atomic_file, disk_errors
from glassformer.text_files import decode, parse_json


def save_weights(path: str | os.PathLike[str], tensors: dict[str, Tensor], **metadata: str) -> None:
    """Write a safetensors file atomically; tensors are copied to the CPU and made contiguous."""
    with atomic_file(path) as temporary:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(plain, temporary, metadata={"format": "pt", **metadata})
        except SafetensorError as error:  # it wraps the operating system's refusal, whose number stands in the text
            raise _os_error(error) from error
        if metadata:
            _sort_metadata(Path(temporary))


def _sort_metadata(path: Path) -> None:
    """Put the metadata of a file in order; the library writes them in one that differs from call to call."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        file.seek(8)
        file.write(json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode().ljust(length))


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file. Raises `ModelFolderError` for one that is missing, truncated or damaged."""
    path = Path(path)
    if not path.is_file():
        raise ModelFolderError(f"{path}: the weights are missing; the folder is incomplete: copy or train it again")
    try:
        with disk_errors(path):
            return load_file(path)
    except (SafetensorError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFolderError(
            f"{path}: damaged or truncated ({reason}); take an earlier checkpoint or copy it again"
        ) from None


def load_sharded(folder: Path) -> dict[str, Tensor]:
    """The weights of a model folder: `model.safetensors`, or the files that `model.safetensors.index.json` names.
    Raises `ModelFolderError` as `load_weights`, and for pickles and an index with files elsewhere or lost tensors."""
    whole, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    if whole.is_file() or not index.is_file():
        if not whole.is_file():
            _refuse_other_weights(folder)
        return load_weights(whole)
    try:
        place = {str(n): str(f) for n, f in parse_json(decode(index.read_bytes()))["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ModelFolderError(f"{index}: not an index of weights; copy it again") from None
    tensors: dict[str, Tensor] = {}
    for file in sorted(set(place.values())):
        if Path(file).name != file:
            raise ModelFolderError(f"{index}: names the file {file!r}, which is outside the folder")
        tensors |= load_weights(folder / file)
    if lost := place.keys() - tensors.keys():
        raise ModelFolderError(f"{index}: the tensor {min(lost)} is in none of its files; copy them again")
    return tensors


# Weights as others keep them.
_PICKLE = "a pickle, which could run anything"
_OTHERS = {
    "pytorch_model*.bin": _PICKLE,
    "*.pth": _PICKLE,
    "model-*-of-*.safetensors": "one of several files, whose index (model.safetensors.index.json) is missing",
    "*.safetensors": "weights under another name",
    "*.h5": "weights of TensorFlow",
    "*.msgpack": "weights of JAX",
    "*.bin": _PICKLE,
}


def _refuse_other_weights(folder: Path) -> None:
    """Raise for a folder whose weights are there in another form."""
    for pattern, what in _OTHERS.items():
        if found := sorted(folder.glob(pattern)):
            raise ModelFolderError(f"{found[0]}: {what}; take model.safetensors (save_pretrained of transformers)")


def _os_error(error: SafetensorError) -> OSError:
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]) if number else 5, str(error))
