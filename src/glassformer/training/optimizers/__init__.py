"""Optimizers: AdamW for everything; Muon for matrices beside it; Adagrad for tables of words; SGD.

They are small classes and not `torch.optim.Optimizer`s for two reasons. State is kept by the parameter's name, so a
checkpoint is a plain table of tensors; and making a `torch.optim` object imports the compiler (`torch._dynamo`), which
takes as long as a sixth of the fastest training run. The arithmetic is PyTorch's own kernels; tests hold it equal to
`torch.optim`.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers.lora import is_lora
from glassformer.training.optimizers.base import Optimizer, Together
from glassformer.training.optimizers.elementwise import SGD, Adagrad, AdamW
from glassformer.training.optimizers.muon import Muon, joined_rows

# what each reads of a recipe's [training]
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adamw": ("learning_rate", "beta1", "beta2", "weight_decay"),
    "muon": ("learning_rate", "matrix_learning_rate", "momentum", "beta1", "beta2", "weight_decay"),
    "adagrad": ("learning_rate", "accumulator_start"),
    "sgd": ("learning_rate", "momentum", "nesterov", "weight_decay"),
}


def build_optimizer(
    kind: str,
    model: nn.Module,
    *,
    learning_rate: float,
    matrix_learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    momentum: float = 0.95,
    accumulator_start: float = 0.0,
    nesterov: bool = False,
    companion: nn.Module | None = None,
) -> Optimizer:
    """`adamw`: one rate for all. `muon`: Muon with `matrix_learning_rate` for the matrices inside the blocks, AdamW
    with `learning_rate` for embeddings, head, norms and biases. `adagrad`: a rate for each number, no decay. `sgd`:
    plain descent with `momentum` (`nesterov` if asked) and `weight_decay`.

    companion: a second module, whose parameters are called `companion.NAME`.

    Frozen parameters (`requires_grad=False`) are left out: no state is kept for them, in memory or in checkpoints.

    Raises:
        UsageError: there is no such optimizer, or nothing to train.
    """
    if kind not in OPTIMIZERS:
        raise UsageError(f"training.optimizer={kind!r} is unknown; {did_you_mean(kind, OPTIMIZERS)}")
    named = dict(model.named_parameters())
    if companion is not None:
        named |= {f"companion.{name}": p for name, p in companion.named_parameters()}
    parameters = {name: p for name, p in named.items() if p.requires_grad}
    if not parameters:
        raise UsageError("every parameter is frozen (requires_grad=False), so there is nothing to train; thaw one")
    if kind == "adagrad":
        return Adagrad(parameters, learning_rate=learning_rate, start=accumulator_start)
    options: dict[str, Any] = {"momentum": momentum, "weight_decay": weight_decay}
    if kind == "sgd":
        return SGD(parameters, learning_rate=learning_rate, nesterov=nesterov, **options)
    inside = {name: p for name, p in parameters.items() if kind == "muon" and _is_matrix_of_a_block(name, p)}
    outside = {name: p for name, p in parameters.items() if name not in inside}
    adamw = AdamW(outside, learning_rate=learning_rate, betas=betas, weight_decay=weight_decay)
    if not inside:
        return adamw
    return Together(Muon(inside, joined_rows(model), learning_rate=matrix_learning_rate, **options), adamw)


def _is_matrix_of_a_block(name: str, parameter: nn.Parameter) -> bool:
    return "blocks" in name.split(".") and parameter.dim() == 2 and not is_lora(name)


__all__ = ["OPTIMIZERS", "SGD", "Adagrad", "AdamW", "Muon", "Optimizer", "Together", "build_optimizer"]
