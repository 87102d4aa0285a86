"""Adagrad, for tables of words."""

from __future__ import annotations

from typing import Any

import torch

from glassformer.training.optimizers.base import Named, Optimizer, gradient


class Adagrad(Optimizer):
    """Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html, diagonal: p -= lr g / sqrt(start + sum of g^2).

    Every number has a learning rate of its own. In a table of words a frequent word and one that occurs once in a
    thousand steps learn side by side, where Adam, which forgets, makes the rare one unstable (`docs/experiments.md`).

    start: what the sums begin with. While they are small beside it, a number goes by plain gradient descent at
    lr / sqrt(start).
    """

    kind = "adagrad"
    eps = 1e-12

    def __init__(self, parameters: Named, *, learning_rate: float, start: float = 0.0):
        super().__init__(parameters, learning_rate)
        self.state = {"squares": {name: torch.full_like(p, start) for name, p in parameters.items()}}

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        lr = self.learning_rate * factor
        for name, p in self.with_gradient().items():
            squares, g = self.state["squares"][name], gradient(p)
            if p.device.type == "cpu":  # one pass over the table, a fifth of the time of three
                steps = torch.zeros(())  # for a decay that is none here
                options: Any = {"lr": lr, "lr_decay": 0.0, "weight_decay": 0.0, "eps": self.eps, "maximize": False}
                torch._fused_adagrad_([p], [g], [squares], [steps], **options)
            else:
                squares.addcmul_(g, g)
                p.addcdiv_(g, squares.sqrt().add_(self.eps), value=-lr)
