"""AdamW, by PyTorch's fused kernel."""

from __future__ import annotations

import torch

from glassformer.training.optimizers.base import Named, Optimizer, gradient, own_part, zeros_like


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
