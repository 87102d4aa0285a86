"""nanoGPT's checkpoints: `ckpt.pt`, a pickle. Only its tensors and plain values are read.

https://github.com/karpathy/nanoGPT. Its modules have GPT-2's names with `nn.Linear` in place of `Conv1D`, biases only
if asked for, and the exact GELU. It keeps no tokenizer: GPT-2's where the vocabulary has its size, else one is given.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import GlassformerError, ModelFolderError
from glassformer.files import disk_errors
from glassformer.hub.families.gpt2 import GPT2
from glassformer.hub.families.weight_table import IDENTITY, Row
from glassformer.hub.state_dict import check_count, model_of
from glassformer.models import ModelConfig
from glassformer.processors.tokenizers import Tokenizer
from glassformer.processors.tokenizers.gpt2 import gpt2_tokenizer

GPT2_SIZES = (50_257, 50_304)  # GPT-2's vocabulary, and the same padded to a multiple of 64
SIZES = ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")


class NanoGPT(GPT2):
    """GPT-2 with matrices as (out, in), and without zero biases where a model has none."""

    matrices = IDENTITY

    def table(self, c: ModelConfig) -> list[Row]:
        return [row for row in super().table(c) if c.bias or not row.ours.endswith(".bias")]


def load_nanogpt(path: Path) -> tuple[Any, Tokenizer | None]:
    """The model of a checkpoint, and GPT-2's tokenizer if its vocabulary has that size. Raises `ModelFolderError` if it
    is damaged, holds more than tensors and plain values, or is not nanoGPT's. Raises `DataError` if GPT-2's vocabulary
    cannot be fetched."""
    checkpoint = _read(path)
    arguments, tensors = checkpoint.get("model_args"), checkpoint.get("model")
    if not isinstance(arguments, dict) or not isinstance(tensors, dict):
        raise ModelFolderError(f"{path}: not a checkpoint of nanoGPT, which holds `model` and `model_args`")
    if missing := [name for name in SIZES if name not in arguments]:
        raise ModelFolderError(f"{path}: model_args has no {missing[0]}")
    config = ModelConfig.make(
        family="classic",
        **{name: arguments[name] for name in SIZES},
        bias=arguments.get("bias", True),
        activation="gelu",
    )
    check_count(path, config, len(tensors))
    if others := [name for name, tensor in tensors.items() if not isinstance(tensor, Tensor)]:
        raise ModelFolderError(f"{path}: {others[0]} is no tensor")
    model = model_of(NanoGPT(), config, {str(name): tensor.float() for name, tensor in tensors.items()}, path)
    return model, gpt2_tokenizer() if config.vocab_size in GPT2_SIZES else None


def _read(path: Path) -> dict[str, Any]:
    try:
        with disk_errors(path):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except GlassformerError:
        raise
    except Exception as error:  # of a damaged archive or a pickle that asks for more, a dozen kinds
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        problem = "damaged or holds more than tensors and plain values"
        raise ModelFolderError(f"{path}: not read, because it is {problem} ({reason})") from None
    return found if isinstance(found, dict) else {}
