"""Counting without computing: parameters by part, and floating-point operations a token.

The decoder is put together on PyTorch's `meta` device, where tensors have shapes and no memory: GPT-3 is counted in a
moment, and whatever a configuration can say is counted as it would be built.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from glassformer.layers import Attention, FeedForward, GatedFeedForward
from glassformer.models.config import ModelConfig
from glassformer.models.decoder import Decoder


class FlopsPerToken(NamedTuple):
    """Floating-point operations for one token of a sequence (a multiplication and an addition are two)."""

    forward: int
    training: int


@lru_cache(maxsize=64)
def decoder_on_meta(config: ModelConfig) -> Decoder:
    """The decoder with shapes only: no weight is drawn and no memory taken. For counting; do not change it."""
    with ShapesOnly():
        return Decoder(config)


class ShapesOnly(TorchFunctionMode):
    """Lets `torch.empty` make tensors on the meta device, and nothing be drawn into them.

    `torch.device("meta")` would do it too, but sends the little arithmetic of position tables there as well, which
    imports PyTorch's compiler: two seconds before a run, for nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.empty:
            return func(*args, **{**kwargs, "device": "meta"})
        if func.__name__ in ("normal_", "uniform_", "kaiming_uniform_", "zeros_", "zero_"):
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def parameters_by_part(config: ModelConfig) -> dict[str, int]:
    """Parameters of a decoder, part by part, in the order of the computation; zeros are left out.

    The parts are those of 3Blue1Brown's tally of GPT-3 (embedding, query, key, value, output, up, gate, down,
    unembedding), then positions, norms and biases. A tied head is the embedding and so is not counted again. The sum is
    `Decoder(config).parameter_count()`.

    >>> parts = parameters_by_part(ModelConfig.make(vocab_size=65, block_size=8, n_layer=1, n_head=2, n_embd=4))
    >>> parts["embedding"], parts["positions"], parts["query"], parts["up"]
    (260, 32, 16, 64)
    """
    model = decoder_on_meta(config)
    parts = dict.fromkeys((*_ORDER, "other"), 0)
    for path, parameter in model.named_parameters():
        owner = model.get_submodule(path.rpartition(".")[0].rpartition(".")[0])
        for part, size in _parts_of(path, parameter, owner):
            parts[part] += size
    return {part: size for part, size in parts.items() if size}


def flops_per_token(config: ModelConfig, T: int | None = None) -> FlopsPerToken:
    """Operations a token at context length T (default: block_size), forward and for training.

    The convention of PaLM (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B), which nanoGPT and most
    reports of utilisation follow: 2 for each weight of a matrix that the token is multiplied with (the head counts,
    also a tied one; looking up an embedding does not), and 4 L H D T for scores and weighted sums, as if nothing were
    masked. The backward pass takes twice as much, so training is three times the forward pass: 6 N + 12 L H D T. What
    is computed a second time (recomputed activations) and everything that is no matrix product counts as nothing.
    """
    T = config.block_size if T is None else T
    matrices = sum(m.weight.numel() for m in decoder_on_meta(config).modules() if isinstance(m, nn.Linear))
    forward = 2 * matrices + 4 * config.n_layer * config.n_head * config.head_width * T
    return FlopsPerToken(forward, 3 * forward)


_ORDER = (
    "embedding",
    "n-grams",
    "positions",
    "query",
    "key",
    "value",
    "output",
    "up",
    "gate",
    "down",
    "unembedding",
    "norms",
    "biases",
)
_BY_NAME = {"embedding.token.weight": "embedding", "positions.weight": "positions", "head.weight": "unembedding"}


def _parts_of(path: str, parameter: nn.Parameter, owner: nn.Module) -> list[tuple[str, int]]:
    """What a parameter counts as; one that holds several matrices counts as each. `owner`: the module around the layer
    that it belongs to."""
    size, layer = parameter.numel(), path.split(".")[-2] if "." in path else ""
    if path in _BY_NAME:
        return [(_BY_NAME[path], size)]
    if ".n_grams." in path:
        return [("n-grams", size)]
    if parameter.dim() < 2:
        return [("biases" if path.endswith("bias") else "norms" if "norm" in layer else "other", size)]
    if isinstance(owner, Attention) and layer == "qkv":
        return [
            (part, rows * parameter.shape[1])
            for part, rows in zip(("query", "key", "value"), owner.qkv_rows, strict=True)
        ]
    if isinstance(owner, GatedFeedForward) and layer == "gate_up":
        return [("up", size // 2), ("gate", size // 2)]
    if isinstance(owner, (Attention, FeedForward, GatedFeedForward)) and layer in ("out", "up", "down"):
        return [("output" if layer == "out" else layer, size)]
    return [("other", size)]
