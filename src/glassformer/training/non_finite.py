"""Where did the numbers go bad? The first module, in the order of the computation, that holds or makes a NaN."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_non_finite(model: nn.Module, ids_BT: Tensor) -> str:
    """Run the model once more and name the first module with a bad weight or a bad output, else the first bad
    gradient."""
    found: list[str] = []

    def look(name: str):
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if found:
                return
            for own, weight in module.named_parameters(recurse=False):
                if not torch.isfinite(weight).all():
                    found.append(f"{name}.{own} (a weight)")
                    return
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(f"{name} (its output)")

        return hook

    leaves = [(name, module) for name, module in model.named_modules() if not list(module.children())]
    handles = [module.register_forward_hook(look(name)) for name, module in leaves]
    try:
        model(ids_BT)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        gradients = ((name, p.grad) for name, p in model.named_parameters() if p.grad is not None)
        found = [f"{name} (its gradient)" for name, gradient in gradients if not torch.isfinite(gradient).all()]
    return found[0] if found else "the loss itself"
