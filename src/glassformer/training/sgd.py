"""Stochastic gradient descent with momentum: the plain baseline that every other optimizer is measured against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassformer.errors import RunError


class SGD:
    """p -= lr d, where g is the gradient plus weight_decay p, v = momentum v + g, and d = v (nesterov: g + momentum v).

    As `torch.optim.SGD` (Sutskever et al. 2013, https://proceedings.mlr.press/v28/sutskever13.html, with the rate
    outside the momentum); a test holds both equal. Decay works on matrices and embeddings only, as in AdamW here.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        *,
        learning_rate: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ):
        self.learning_rate, self.parameters = learning_rate, parameters
        self.momentum, self.weight_decay, self.nesterov = momentum, weight_decay, nesterov
        self.velocity = {name: torch.zeros_like(p) for name, p in parameters.items()} if momentum else {}

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """One update with the gradients as they are, at `factor` times the learning rate."""
        named = [(name, p) for name, p in self.parameters.items() if p.grad is not None]
        if not named:
            return
        parameters: list[Tensor] = [p for _, p in named]
        moves: list[Tensor] = [p.grad for p in parameters if p.grad is not None]
        if self.weight_decay:
            decay = self.weight_decay
            moves = [g.add(p, alpha=decay) if p.dim() >= 2 else g for g, p in zip(moves, parameters, strict=True)]
        if self.momentum:
            velocity = [self.velocity[name] for name, _ in named]
            torch._foreach_mul_(velocity, self.momentum)
            torch._foreach_add_(velocity, moves)
            moves = list(torch._foreach_add(moves, velocity, alpha=self.momentum)) if self.nesterov else velocity
        torch._foreach_add_(parameters, moves, alpha=-self.learning_rate * factor)

    def state_dict(self) -> dict[str, Tensor]:
        """All state by name: `sgd.velocity.NAME`; none without momentum."""
        return {f"sgd.velocity.{name}": tensor for name, tensor in self.velocity.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, own in self.state_dict().items():
            if name not in state or state[name].shape != own.shape:
                raise RunError(f"the checkpoint has no optimizer state {name} of shape {tuple(own.shape)}")
            own.copy_(state[name])
