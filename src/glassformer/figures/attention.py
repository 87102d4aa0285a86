"""Cross-attention as heat maps: where a decoder looked in the source for each token that it wrote.

The first such picture: Bahdanau et al. 2014, https://arxiv.org/abs/1409.0473, figure 3.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from glassformer.errors import UsageError
from glassformer.figures.primitives import Figure, HeatMap, Note


def cross_attention_figures(weights_LHTS: np.ndarray, source: Sequence[str], target: Sequence[str]) -> list[Figure]:
    """One large map, the mean over the heads of the last layer, and a small one for every head of every layer.

    Args:
        weights_LHTS: (layers, heads, T, S), as `glassformer.generation.cross_attention` gives it; a row adds up to 1.
        source, target: the S and T tokens as text.

    Raises:
        UsageError: there are not as many tokens as rows and columns.
    """
    L, H, T, S = weights_LHTS.shape
    if (len(target), len(source)) != (T, S):
        raise UsageError(f"{T} x {S} weights for {len(target)} x {len(source)} tokens; give one label for each")
    title = f"Last layer, mean over {H} heads" if H > 1 else "Weights"
    axes = ("target (written)", "source (read)")
    figures: list[Figure] = [HeatMap(title, weights_LHTS[-1].mean(axis=0), target, source, *axes, "share")]
    if L * H > 1:
        figures.append(Note("Every head, each from 0 to its own highest weight:"))
    for layer in range(L if L * H > 1 else 0):
        figures.append(Note(f"Layer {layer + 1}"))
        figures += [
            HeatMap(f"head {head + 1}", weights_LHTS[layer, head], (), (), role="share", compact=True)
            for head in range(H)
        ]
    return figures
