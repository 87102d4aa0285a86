"""Counting without computing: parameters by part, and floating-point operations a token.

A model is put together on PyTorch's `meta` device, where tensors have shapes and no memory: GPT-3 is counted in a
moment, and every configuration is counted as it would be built.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from glassformer.layers import Experts
from glassformer.models.config import ModelConfig
from glassformer.models.parts import PARTS, pieces


class FlopsPerToken(NamedTuple):
    """Floating-point operations for one token of a sequence (a multiplication and an addition are two)."""

    forward: int
    training: int


@lru_cache(maxsize=64)
def model_on_meta(config: Any) -> nn.Module:
    """The model of a configuration with shapes only: no weight is drawn and no memory taken. For counting; do not
    change it."""
    from glassformer.models.building import build_model  # which knows the models that were before, and they this file

    with ShapesOnly():
        return build_model(config)


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


def parameter_count(config: Any) -> int:
    """Parameters of the model of a configuration; what is shared counts once."""
    return sum(parameter.numel() for parameter in model_on_meta(config).parameters())


def parameters_by_part(what: Any) -> dict[str, int]:
    """Parameters of a model or a configuration, part by part, in the order of the computation; zeros are left out.

    The parts are those of 3Blue1Brown's tally of GPT-3 (embedding, query, key, value, output, up, down, unembedding)
    and what it leaves out (gate, positions, norms, biases, cross-attention ...): `PARTS` lists them. What is shared is
    counted where it stands first, so that a tied head is part of the embedding. The sum is `parameter_count`.

    >>> parts = parameters_by_part(ModelConfig.make(vocab_size=65, block_size=8, n_layer=1, n_head=2, n_embd=4))
    >>> parts["embedding"], parts["positions"], parts["query"], parts["up"]
    (260, 32, 16, 64)
    """
    counted = dict.fromkeys(PARTS, 0)
    for piece in pieces(what if isinstance(what, nn.Module) else model_on_meta(what)):
        counted[piece.part] += 0 if piece.is_same_as else piece.size
    return {part: size for part, size in counted.items() if size}


def flops_per_token(config: ModelConfig, T: int | None = None) -> FlopsPerToken:
    """Operations a token at context length T (default: block_size), forward and for training.

    The convention of PaLM (Chowdhery et al. 2022, https://arxiv.org/abs/2204.02311, appendix B), which nanoGPT and most
    reports of utilisation follow: 2 for each weight of a matrix that the token is multiplied with (the head counts,
    also a tied one; looking up an embedding does not; of experts those that the token visits), and 4 L H D T for scores
    and weighted sums, as if nothing were masked. The backward pass takes twice as much, so training is three times the
    forward pass: 6 N + 12 L H D T. What is computed a second time (recomputed activations) and everything that is no
    matrix product counts as nothing.
    """
    T = config.block_size if T is None else T
    model = model_on_meta(config)
    matrices = _matrix_numbers(model)
    for mixture in (m for m in model.modules() if isinstance(m, Experts)):
        matrices -= (len(mixture.experts) - mixture.active) * _matrix_numbers(mixture.experts[0])
    forward = 2 * matrices + 4 * config.n_layer * config.n_head * config.head_width * T
    return FlopsPerToken(forward, 3 * forward)


def _matrix_numbers(model: nn.Module) -> int:
    return sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
