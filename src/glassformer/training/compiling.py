"""Compile a model for training: once for each machine and shape, and to the same bits every time.

The compiler (`torch.compile`, TorchInductor) writes C++ or Triton for a model's graph. Cold that takes tens of seconds;
what it made is kept in our cache folder, where the next start finds it.
"""

from __future__ import annotations

import os
from typing import TypeVar

import torch
from torch import nn

from glassformer.errors import GlassformerError
from glassformer.files import cache_folder, disk_errors

Module = TypeVar("Module", bound=nn.Module)


def compiled(module: Module, device: str) -> Module:
    """The compiled form of a module: same parameters, same results to rounding, for fixed shapes.

    What the compiler makes is kept in `inductor/` of our cache folder (`files.cache_folder`), unless
    `TORCHINDUCTOR_CACHE_DIR` names another one; a folder that cannot be written to costs the time again and nothing
    else. On a CPU this turns on PyTorch's deterministic algorithms for the whole process: compiled, several threads
    would else add an embedding's gradients in whatever order they come.
    """
    _keep_what_is_made()
    if device == "cpu":
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # a debugging aid that costs a pass over memory
    return torch.compile(module, dynamic=False)  # type: ignore[return-value]


def _keep_what_is_made() -> None:
    """Point the compiler to our cache folder, unless another is chosen; before its first use, as it is read once."""
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", _default()) != _default():
        return
    folder = cache_folder() / "inductor"
    try:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    except GlassformerError:
        pass  # the compiler's own choice, a temporary folder, will do


def _default() -> str:
    """What the compiler itself puts into the variable when it is not set."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    return default_cache_dir()
