"""Safetensors files: written whole or not at all, read with one clear line about what is wrong."""

from __future__ import annotations

import os
import re
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from glassformer.errors import ModelFolderError
from glassformer.files import atomic_file, disk_errors


def save_weights(path: str | os.PathLike[str], tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file atomically; tensors are copied to the CPU and made contiguous."""
    with atomic_file(path) as temporary:
        plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        try:
            save_file(plain, temporary, metadata={"format": "pt"})
        except SafetensorError as error:  # it wraps the operating system's refusal, whose number stands in the text
            raise _os_error(error) from error


def load_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Read a safetensors file.

    Raises:
        ModelFolderError: it is missing, truncated or damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelFolderError(f"{path}: the weights are missing; the folder is incomplete: copy or train it again")
    try:
        with disk_errors(path):
            return load_file(path)
    except (SafetensorError, ValueError) as error:
        raise ModelFolderError(
            f"{path}: damaged or truncated ({str(error).splitlines()[0]}); take an earlier checkpoint or copy it again"
        ) from None


def _os_error(error: SafetensorError) -> OSError:
    number = re.search(r"os error (\d+)", str(error))
    return OSError(int(number[1]) if number else 5, str(error))
