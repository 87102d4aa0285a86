"""Adagrad: every number has a learning rate of its own, which falls with what it has been through.

For tables of words: a word that is met a thousand times a step and one that is met once in a thousand steps learn side
by side, where Adam, which forgets, throws the rare one about (`docs/experiments.md`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import RunError

EPS = 1e-12


class Adagrad:
    """Duchi et al. 2011, https://jmlr.org/papers/v12/duchi11a.html, diagonal: p -= lr g / sqrt(start + sum of g^2).

    start: what the sums begin with. While they are small beside it, a number goes by plain gradient descent at
    lr / sqrt(start).
    """

    def __init__(self, parameters: dict[str, nn.Parameter], *, learning_rate: float, start: float = 0.0):
        self.learning_rate, self.parameters = learning_rate, parameters
        self.squares = {name: torch.full_like(p, start) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """One update with the gradients as they are, at `factor` times the learning rate."""
        lr = self.learning_rate * factor
        for name, p in self.parameters.items():
            if p.grad is None:
                continue
            squares = self.squares[name]
            if p.device.type == "cpu":  # one pass over the table, a fifth of the time of three
                steps = torch.zeros(())  # for a decay that is none here
                options: Any = {"lr": lr, "lr_decay": 0.0, "weight_decay": 0.0, "eps": EPS, "maximize": False}
                torch._fused_adagrad_([p], [p.grad], [squares], [steps], **options)
            else:
                squares.addcmul_(p.grad, p.grad)
                p.addcdiv_(p.grad, squares.sqrt().add_(EPS), value=-lr)

    def state_dict(self) -> dict[str, Tensor]:
        """All state by name: `adagrad.squares.NAME`."""
        return {f"adagrad.squares.{name}": tensor for name, tensor in self.squares.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, own in self.state_dict().items():
            if name not in state or state[name].shape != own.shape:
                raise RunError(f"the checkpoint has no optimizer state {name} of shape {tuple(own.shape)}")
            own.copy_(state[name])
