"""Small real models for the tests. Sizes are prime or all different, so that a swapped axis cannot pass."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from glassformer.models import Decoder, ModelConfig

CLASSIC: dict[str, Any] = {
    "family": "classic",
    "vocab_size": 61,
    "block_size": 13,
    "n_layer": 2,
    "n_head": 3,
    "n_embd": 15,  # heads of 5
    "n_hidden": 23,
}
MODERN: dict[str, Any] = {
    "family": "modern",
    "vocab_size": 61,
    "block_size": 13,
    "n_layer": 2,
    "n_head": 6,
    "n_kv_head": 2,
    "head_width": 10,
    "n_embd": 42,
    "n_hidden": 29,
}
# What makes a modern model a Gemma 3; windows far shorter than the block.
GEMMA3: dict[str, Any] = {
    "norm": "zero_centered_rmsnorm",
    "norm_place": "sandwich",
    "activation": "gelu_new",
    "embedding_scale": math.sqrt(MODERN["n_embd"]),
    "patterns": ("window(3)", "causal"),
    "rotary_base": 50.0,
    "rotary_base_local": 7.0,
}


def toy_config(family: str = "classic", **changes: Any) -> ModelConfig:
    return ModelConfig.make(**{**(CLASSIC if family == "classic" else MODERN), **changes})


def toy_model(family: str = "classic", *, seed: int = 0, **changes: Any) -> Decoder:
    """A decoder in eval mode with large random weights everywhere: every parameter matters to the logits."""
    return shaken(Decoder(toy_config(family, **changes)), seed).eval()


def shaken(module: nn.Module, seed: int = 0) -> nn.Module:
    """Fresh weights are nearly zero, norms one and biases zero, which would hide mistakes; here all of them count."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            centre = 1.0 if parameter.dim() == 1 and name.endswith("weight") else 0.0  # the scale of a norm
            parameter.copy_(centre + 0.3 * torch.randn(parameter.shape, generator=generator))
    return module


def toy_ids(*shape: int, vocab_size: int = 61, seed: int = 0) -> torch.Tensor:
    return torch.randint(vocab_size, shape, generator=torch.Generator().manual_seed(seed))
