"""Sampling in one compiled call, where top-k is the only filter.

`generation/sampling.py` does it in two dozen calls. Probabilities may differ from its in the seventh digit; a test
holds the tokens equal.
"""

from __future__ import annotations

import ctypes

from torch import Tensor

from glassformer.native.building import library
from glassformer.threads import kernel_threads


def sample(
    plain_BV: Tensor, logits_BV: Tensor, temperature: float, top_k: int, u_B: list[float]
) -> tuple[list[int], list[float], list[float]]:
    """A token a row, its probability after temperature and filters, and the model's own (temperature 1, no biases).

    plain, logits: fp32 on the CPU, before and after biases. u: of each row a number in [0, 1) that decides; not used at
    temperature 0.
    """
    B, V = logits_BV.shape
    plain_BV, logits_BV = plain_BV.contiguous(), logits_BV.contiguous()
    tokens, sampling_probabilities, own = (ctypes.c_int32 * B)(), (ctypes.c_float * B)(), (ctypes.c_float * B)()
    library().glassformer_draw(  # type: ignore[union-attr]
        *(plain_BV.data_ptr(), logits_BV.data_ptr(), B, V, temperature, min(top_k, V)),
        *((ctypes.c_double * B)(*u_B), tokens, sampling_probabilities, own, kernel_threads()),
    )
    return list(tokens), list(sampling_probabilities), list(own)
