"""Stochastic gradient descent, with momentum or without."""

from __future__ import annotations

import torch
from torch import Tensor

from glassformer.training.optimizers.base import Named, Optimizer, gradient, zeros_like


class SGD(Optimizer):
    """p -= lr d, where g is the gradient plus weight_decay p, v = momentum v + g, and d = v (nesterov: g + momentum v).

    The plain baseline. As `torch.optim.SGD` (Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html,
    with the rate outside the momentum). Decay works on matrices and embeddings only, as in AdamW here.
    """

    kind = "sgd"

    def __init__(
        self,
        parameters: Named,
        *,
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        super().__init__(parameters, learning_rate)
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.state = {"velocity": zeros_like(parameters)} if momentum else {}

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        named = self.with_gradient()
        if not named:
            return
        parameters: list[Tensor] = list(named.values())
        moves = [gradient(p) for p in named.values()]
        if self.weight_decay:
            decay = self.weight_decay
            moves = [g.add(p, alpha=decay) if p.dim() >= 2 else g for g, p in zip(moves, parameters, strict=True)]
        if self.momentum:
            velocity = [self.state["velocity"][name] for name in named]
            torch._foreach_mul_(velocity, self.momentum)
            torch._foreach_add_(velocity, moves)
            moves = list(torch._foreach_add(moves, velocity, alpha=self.momentum)) if self.nesterov else velocity
        torch._foreach_add_(parameters, moves, alpha=-self.learning_rate * factor)
