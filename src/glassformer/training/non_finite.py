"""Where did the numbers go bad? The first module, in the order of the computation, that holds or makes a NaN."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn


@torch.no_grad()
def first_non_finite(model: nn.Module, runs: Iterable[Callable[[], object]]) -> str:
    """Run the model once more and name the first module with a bad weight or a bad output, else the parameter with a
    bad gradient, else the one with the largest.

    Args:
        runs: each calls the model on a piece of the step, as large as fits.
    """
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
        for run in runs:
            run()
            if found:
                return found[0]
    finally:
        for handle in handles:
            handle.remove()
    for name, p in model.named_parameters():  # also of what was not called as a module: a head in pieces
        if not torch.isfinite(p).all():
            return f"{name} (a weight)"
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    bad = next((name for name, gradient in gradients.items() if not torch.isfinite(gradient).all()), None)
    if bad is not None:
        return f"{bad} (its gradient)"
    if not gradients:
        return "the loss itself"
    largest = max(gradients, key=lambda name: float(gradients[name].square().mean()))
    return f"none; the largest gradient is that of {largest}"
