"""Muon: momentum, then every direction of a matrix is given the same length. N matrices, R rows, C columns.

    x = U S V^T  ──►  U V^T          by a few matrix products, for many matrices at once

A quintic a x + b (x x^T) x + c (x x^T)^2 x acts on the singular values alone; the right ones in turn push all of them
towards 1 (a Newton-Schulz iteration). The tests hold both this and the update equal to readable twins.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.layers import Attention, CrossAttention, GatedFeedForward
from glassformer.training.optimizers.base import Named, Optimizer, gradient, zeros_like

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


class Muon(Optimizer):
    """Momentum, then orthogonalised: every update moves all directions of a matrix by the same length.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. The orthogonalisation runs at once for all matrices
    of one shape. The query, key and value of each head (and gate and up) lie in one parameter for speed but are
    matrices of their own, and are treated as such.

    A matrix is orthogonalised whole: of a sharded parameter (a `DTensor`) every rank gathers the momentum, computes,
    and keeps its own shard of the update.
    """

    kind = "muon"

    def __init__(
        self,
        parameters: Named,
        rows: dict[str, tuple[int, ...]],
        *,
        learning_rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        """`rows[name]`: the heights of the matrices that a parameter holds one above the other, if several."""
        super().__init__(parameters, learning_rate)
        self.momentum, self.weight_decay = momentum, weight_decay
        self.state = {"mean": zeros_like(parameters)}
        self.groups: dict[tuple[int, int], list[tuple[str, int, int]]] = defaultdict(list)  # shape -> (name, from, to)
        for name, p in parameters.items():
            start = 0
            for n in rows.get(name, (p.shape[0],)):
                self.groups[n, p.shape[1]].append((name, start, start + n))
                start += n

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        lr = self.learning_rate * factor
        named = self.with_gradient()
        parameters: list[Tensor] = list(named.values())
        gradients = [gradient(p) for p in named.values()]
        means = [self.state["mean"][name] for name in named]
        torch._foreach_lerp_(means, gradients, 1 - self.momentum)
        # Nesterov: look one step ahead along the momentum
        ahead = torch._foreach_lerp(gradients, means, self.momentum)
        updates = {name: _whole(x) for name, x in zip(named, ahead, strict=True)}
        for (n_out, n_in), places in self.groups.items():
            matrices = [updates[name][a:b] for name, a, b in places if name in updates]
            if matrices:
                made = orthogonalise(torch.stack(matrices)).mul_(math.sqrt(max(1.0, n_out / n_in)))
                torch._foreach_copy_(matrices, list(made.unbind()))
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        torch._foreach_add_(parameters, [_sharded_as(p, updates[name]) for name, p in named.items()], alpha=-lr)


def joined_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The parameters that hold several matrices one above the other, and how many rows each has."""
    rows: dict[str, tuple[int, ...]] = {}
    for path, module in model.named_modules():
        if isinstance(module, Attention):
            rows[f"{path}.qkv.weight"] = (module.head_width,) * (module.n_head + 2 * module.n_kv_head)
        elif isinstance(module, CrossAttention):
            rows[f"{path}.query.weight"] = (module.head_width,) * module.n_head
            rows[f"{path}.key_value.weight"] = (module.head_width,) * (2 * module.n_kv_head)
        elif isinstance(module, GatedFeedForward):
            rows[f"{path}.gate_up.weight"] = (module.gate_up.out_features // 2,) * 2
    return rows


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
    """The iteration as published: 4 R^2 C + 2 R^3 operations each time."""
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


def _whole(x: Tensor) -> Tensor:
    """A tensor itself, or all shards of a `DTensor` together (every rank must ask at the same time)."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def _sharded_as(p: Any, whole: Tensor) -> Tensor:
    """`whole`, sharded as `p` is, without communication: every rank holds all of it and keeps its own part."""
    if not hasattr(p, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, p.device_mesh, p.placements, src_data_rank=None)
