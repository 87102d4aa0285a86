"""nanoGPT's checkpoints: `ckpt.pt`, a pickle, of which only tensors and plain values are read.

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
from glassformer.hub.state_dict import check_count, model_of
from glassformer.hub.tensor_names import match_names
from glassformer.models import ModelConfig
from glassformer.processors.tokenizers import Tokenizer

GPT2_SIZES = (50_257, 50_304)  # GPT-2's vocabulary, and the same padded to a multiple of 64
_TURNED = ("c_attn.weight", "c_proj.weight", "c_fc.weight")  # (in, out) in GPT-2


def load_nanogpt(path: Path) -> tuple[Any, Tokenizer | None]:
    """The model of a checkpoint, and GPT-2's tokenizer if its vocabulary has that size.

    Raises:
        ModelFolderError: it is damaged, holds more than tensors and plain values, or is not nanoGPT's.
        DataError: GPT-2's vocabulary cannot be fetched.
    """
    checkpoint = _read(path)
    arguments, tensors = checkpoint.get("model_args"), checkpoint.get("model")
    if not isinstance(arguments, dict) or not isinstance(tensors, dict):
        raise ModelFolderError(f"{path}: not a checkpoint of nanoGPT, which holds `model` and `model_args`")
    try:
        config = ModelConfig.make(
            family="classic",
            **{name: arguments[name] for name in ("vocab_size", "block_size", "n_layer", "n_head", "n_embd")},
            bias=arguments.get("bias", True),
            activation="gelu",
        )
    except KeyError as error:
        raise ModelFolderError(f"{path}: model_args has no {error.args[0]}") from None
    check_count(path, config, len(tensors))
    family = GPT2()
    named = {str(name): tensor for name, tensor in tensors.items()}
    theirs: dict[str, Tensor] = {}
    for name, tensor in match_names(named, family.names(config), family.base_prefix).items():
        if not isinstance(tensor, Tensor):
            raise ModelFolderError(f"{path}: {name} is a {type(tensor).__name__} and no tensor")
        if not name.endswith((".attn.bias", ".attn.masked_bias")):  # the mask of older versions
            theirs[name] = tensor.float().t() if name.endswith(_TURNED) else tensor.float()
    if not config.bias:
        for row in family.table(config):
            for there in row.theirs:
                if row.like is not None and there is not None and there not in theirs:
                    weight = theirs.get(there.removesuffix("bias") + "weight")
                    if weight is not None:
                        theirs[there] = weight.new_zeros(weight.shape[-1])  # out is the last axis of a turned matrix
    model = model_of(family, config, theirs, path)
    if config.vocab_size not in GPT2_SIZES:
        return model, None
    from glassformer.processors.tokenizers.gpt2 import gpt2_tokenizer

    return model, gpt2_tokenizer()


def _read(path: Path) -> dict[str, Any]:
    try:
        with disk_errors(path):
            found = torch.load(path, map_location="cpu", weights_only=True)
    except GlassformerError:
        raise
    except Exception as error:  # of a damaged archive or a pickle that asks for more, a dozen kinds
        reason = str(error).splitlines()[0][:160] if str(error) else type(error).__name__
        raise ModelFolderError(
            f"{path}: not read, because it is damaged or holds more than tensors and plain values ({reason})"
        ) from None
    if not isinstance(found, dict):
        raise ModelFolderError(f"{path}: not a checkpoint of nanoGPT, which is a dictionary")
    return found
