"""Sizes by name, and one dial that derives the rest."""

from __future__ import annotations

from typing import Any


def _gpt(n_layer: int, n_embd: int, n_head: int, block_size: int) -> dict[str, int]:
    return {"n_layer": n_layer, "n_embd": n_embd, "n_head": n_head, "block_size": block_size, "vocab_size": 50_257}


# GPT-2: Radford et al. 2019, table 2. GPT-3: Brown et al. 2020, https://arxiv.org/abs/2005.14165, table 2.1, with two
# of its entries in the form that can be built: the XL has 24 heads of 128 in the table but a width of 2048 (16 heads),
# and the 13B a width of 5140 (5120 = 40 x 128).
SIZES: dict[str, dict[str, Any]] = {
    "gpt2": _gpt(12, 768, 12, 1024),
    "gpt2-medium": _gpt(24, 1024, 16, 1024),
    "gpt2-large": _gpt(36, 1280, 20, 1024),
    "gpt2-xl": _gpt(48, 1600, 25, 1024),
    "gpt3-small": _gpt(12, 768, 12, 2048),
    "gpt3-medium": _gpt(24, 1024, 16, 2048),
    "gpt3-large": _gpt(24, 1536, 16, 2048),
    "gpt3-xl": _gpt(24, 2048, 16, 2048),
    "gpt3-2.7b": _gpt(32, 2560, 32, 2048),
    "gpt3-6.7b": _gpt(32, 4096, 32, 2048),
    "gpt3-13b": _gpt(40, 5120, 40, 2048),
    "gpt3": _gpt(96, 12288, 96, 2048),
}
SIZES["gpt3-175b"] = SIZES["gpt3"]


def dial(n_layer: int) -> dict[str, int]:
    """Width and heads from the depth alone: heads of 64 channels, as many as there are layers.

    `dial(6)` is the lecture's 6 x 384 and `dial(12)` is GPT-2's 12 x 768.

    >>> dial(6)
    {'n_layer': 6, 'n_head': 6, 'n_embd': 384}
    """
    return {"n_layer": n_layer, "n_head": n_layer, "n_embd": 64 * n_layer}
