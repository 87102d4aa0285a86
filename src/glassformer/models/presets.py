"""Families: ways to fill in the fields of a configuration that are not set.

A family is a preset and nothing more: once the fields are filled, only the fields decide.
"""

from __future__ import annotations

from typing import Any

# GPT-2 (Radford et al. 2019)
_CLASSIC: dict[str, Any] = {
    "positions": "learned",
    "norm": "layernorm",
    "norm_eps": 1e-5,
    "feedforward": "plain",
    "activation": "gelu_new",
    "bias": True,
    "qk_norm": False,
    "tied_head": True,
}
# Qwen3 (2025); without qk_norm it is a Llama (Touvron et al. 2023, https://arxiv.org/abs/2302.13971)
_MODERN: dict[str, Any] = {
    "positions": "rotary",
    "norm": "rmsnorm",
    "norm_eps": 1e-6,
    "feedforward": "gated",
    "activation": "silu",
    "bias": False,
    "qk_norm": True,
    "tied_head": True,
}
# the Transformer of 2017 (Vaswani et al., https://arxiv.org/abs/1706.03762): norms behind, embeddings times sqrt(C)
_ORIGINAL: dict[str, Any] = {**_CLASSIC, "positions": "sinusoidal", "norm_place": "post", "activation": "relu"}
FAMILIES: dict[str, dict[str, Any]] = {"classic": _CLASSIC, "modern": _MODERN, "original": _ORIGINAL}
