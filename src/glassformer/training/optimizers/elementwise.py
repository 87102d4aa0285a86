"""Optimizers that treat every number by itself: Adagrad, AdamW, SGD."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from glassformer.training.optimizers.base import Named, Optimizer, gradient, own_part, zeros_like


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


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101, alg. 2).

    Decay works on matrices and embeddings only; vectors (biases, norms) are left alone, as in GPT-2 and nanoGPT.
    """

    kind = "adamw"

    def __init__(
        self,
        parameters: Named,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ):
        super().__init__(parameters, learning_rate)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self.state = {
            "mean": zeros_like(parameters),
            "square": zeros_like(parameters),
            # the kernel counts steps in a tensor beside each parameter
            "count": {name: torch.zeros((), dtype=torch.float32, device=p.device) for name, p in parameters.items()},
        }

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        named = self.with_gradient()
        for decay, names in (
            (self.weight_decay, [n for n, p in named.items() if p.dim() >= 2]),
            (0.0, [n for n, p in named.items() if p.dim() < 2]),
        ):
            if not names:
                continue
            counts = [self.state["count"][n] for n in names]
            torch._foreach_add_(counts, 1.0)
            torch._fused_adamw_(
                [own_part(named[n]) for n in names],
                [own_part(gradient(named[n])) for n in names],
                [own_part(self.state["mean"][n]) for n in names],
                [own_part(self.state["square"][n]) for n in names],
                [],
                counts,
                lr=self.learning_rate * factor,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )


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
