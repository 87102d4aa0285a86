"""Give every direction of a matrix the same length: what Muon does to an update. N matrices, R rows, C columns.

    x = U S V^T  ──►  U V^T          by a few matrix products, for many matrices at once

A quintic a x + b (x x^T) x + c (x x^T)^2 x acts on the singular values alone; the right ones in turn push all of them
towards 1 (a Newton-Schulz iteration). `orthogonalise_by_svd` is the readable twin.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Polar Express (Amsel et al. 2025, https://arxiv.org/abs/2505.16932, alg. 1): the best quintic for each iteration in
# turn, for singular values from 0.001 on.
POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
)
LONG = 1.5  # from this C / R on, products of R x R matrices are fewer operations than products with x


def orthogonalise(x_NRC: Tensor, iterations: int = 3) -> Tensor:
    """Push the singular values of N matrices (N, R, C) towards 1.

    Three iterations leave the smallest ones short of 1, which training does not mind (docs/experiments.md); five bring
    all of them there. On a GPU it runs in bf16, which is enough; on a CPU in the matrices' own precision.
    """
    x = x_NRC.bfloat16() if x_NRC.is_cuda else x_NRC
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # so that x x^T is the smaller square
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.01 + 1e-7)
    quintics = POLAR_EXPRESS[:iterations]
    # bf16 has too few bits for the smallest singular values to survive the squaring
    by_squares = x.shape[-1] >= LONG * x.shape[-2] and x.dtype != torch.bfloat16
    x = _by_squares(x, quintics) if by_squares else _by_itself(x, quintics)
    return (x.mT if tall else x).to(x_NRC.dtype)


def _by_itself(x: Tensor, quintics: tuple[tuple[float, float, float], ...]) -> Tensor:
    """The iteration as it is written: 4 R^2 C + 2 R^3 operations each time."""
    for a, b, c in quintics:
        square = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=b, alpha=c), x, beta=a)
    return x


def _by_squares(x: Tensor, quintics: tuple[tuple[float, float, float], ...]) -> Tensor:
    """The same without the long side: 4 R^2 C once, and 8 R^3 each time.

    With P_k = a + b A_k + c A_k^2 and A_k = x_k x_k^T, each step is x_k+1 = P_k x_k, so A_k+1 = P_k A_k P_k (all of
    them commute) and the result is the product of the P_k, times x.
    """
    square, product = x @ x.mT, None
    for step, (a, b, c) in enumerate(quintics):
        factor = torch.baddbmm(square, square, square, beta=b, alpha=c)
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = factor if product is None else factor @ product
        if step + 1 < len(quintics):
            square = factor @ (factor @ square)
    return x if product is None else product @ x


def orthogonalise_by_svd(x_RC: Tensor) -> Tensor:
    """What `orthogonalise` approximates: x = U S V^T with every singular value set to 1. (R, C) -> (R, C)."""
    u, _, vt = torch.linalg.svd(x_RC, full_matrices=False)
    return u @ vt
