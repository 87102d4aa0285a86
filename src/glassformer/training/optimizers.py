"""Optimizers: AdamW for everything, or Muon for the matrices and AdamW for the rest; Adagrad for tables of words; SGD.

They are small objects of our own and not `torch.optim.Optimizer`s for two reasons. State is kept by the parameter's
name, so a checkpoint is a plain table of tensors; and making a `torch.optim` object imports the compiler
(`torch._dynamo`), which takes as long as a sixth of our fastest training run. The arithmetic of AdamW is still
PyTorch's own fused kernel; a test holds it equal to `torch.optim.AdamW`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import RunError, UsageError, did_you_mean
from glassformer.layers import Attention, CrossAttention, GatedFeedForward
from glassformer.training.adagrad import Adagrad
from glassformer.training.orthogonalise import orthogonalise
from glassformer.training.sgd import SGD

Named = dict[str, nn.Parameter]


class AdamW:
    """Adam with decoupled weight decay (Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101, alg. 2).

    Decay works on matrices and embeddings only; vectors (biases, norms) are left alone, as in GPT-2 and nanoGPT.
    """

    def __init__(
        self,
        parameters: Named,
        *,
        learning_rate: float,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-8,
        weight_decay: float = 0.1,
    ):
        self.learning_rate, self.betas, self.eps, self.weight_decay = learning_rate, betas, eps, weight_decay
        self.parameters = parameters
        self.mean = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.square = {name: torch.zeros_like(p) for name, p in parameters.items()}
        # the kernel counts steps in a tensor beside each parameter
        self.count = {name: torch.zeros((), dtype=torch.float32, device=p.device) for name, p in parameters.items()}

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """One update with the gradients as they are, at `factor` times the learning rate."""
        for decay, names in (
            (self.weight_decay, [n for n, p in self.parameters.items() if p.dim() >= 2]),
            (0.0, [n for n, p in self.parameters.items() if p.dim() < 2]),
        ):
            names = [n for n in names if self.parameters[n].grad is not None]
            if not names:
                continue
            torch._foreach_add_([self.count[n] for n in names], 1.0)
            torch._fused_adamw_(
                [_own(self.parameters[n]) for n in names],
                [_own(_gradient(self.parameters[n])) for n in names],
                [_own(self.mean[n]) for n in names],
                [_own(self.square[n]) for n in names],
                [],
                [self.count[n] for n in names],
                lr=self.learning_rate * factor,
                beta1=self.betas[0],
                beta2=self.betas[1],
                weight_decay=decay,
                eps=self.eps,
                amsgrad=False,
                maximize=False,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """All state by name: `adamw.mean.NAME`, `adamw.square.NAME`, `adamw.count.NAME`."""
        kinds = (("mean", self.mean), ("square", self.square), ("count", self.count))
        return {f"adamw.{kind}.{name}": tensor for kind, table in kinds for name, tensor in table.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        _copy_into(self.state_dict(), state)


class Muon:
    """Momentum, then orthogonalised: every update moves all directions of a matrix by the same length.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. The orthogonalisation runs at once for all matrices
    of one shape. The query, key and value of each head (and gate and up) lie in one parameter for speed but are
    matrices of their own, and are treated as such. `plain_muon_update` is the readable twin.

    A matrix is orthogonalised whole: of a sharded parameter (a `DTensor`) every rank gathers the momentum, computes,
    and keeps its own shard of the update.
    """

    def __init__(
        self,
        parameters: Named,
        rows: dict[str, tuple[int, ...]],
        *,
        learning_rate: float,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ):
        """`rows[name]` tells how the rows of a parameter divide into matrices, where it holds more than one."""
        self.learning_rate, self.momentum, self.weight_decay = learning_rate, momentum, weight_decay
        self.parameters = parameters
        self.mean = {name: torch.zeros_like(p) for name, p in parameters.items()}
        self.groups: dict[tuple[int, int], list[tuple[str, int, int]]] = defaultdict(list)  # shape -> (name, from, to)
        for name, p in parameters.items():
            start = 0
            for n in rows.get(name, (p.shape[0],)):
                self.groups[n, p.shape[1]].append((name, start, start + n))
                start += n

    @torch.no_grad()
    def step(self, factor: float = 1.0) -> None:
        """One update with the gradients as they are, at `factor` times the learning rate."""
        lr = self.learning_rate * factor
        names = [name for name, p in self.parameters.items() if p.grad is not None]
        parameters: list[Tensor] = [self.parameters[name] for name in names]
        gradients = [_gradient(self.parameters[name]) for name in names]
        means = [self.mean[name] for name in names]
        torch._foreach_lerp_(means, gradients, 1 - self.momentum)
        # Nesterov: look one step ahead along the momentum
        ahead = torch._foreach_lerp(gradients, means, self.momentum)
        updates = {name: _whole(x) for name, x in zip(names, ahead, strict=True)}
        for (n_out, n_in), places in self.groups.items():
            matrices = [updates[name][a:b] for name, a, b in places if name in updates]
            if matrices:
                made = orthogonalise(torch.stack(matrices)).mul_(math.sqrt(max(1.0, n_out / n_in)))
                torch._foreach_copy_(matrices, list(made.unbind()))
        if self.weight_decay:
            torch._foreach_mul_(parameters, 1 - lr * self.weight_decay)
        torch._foreach_add_(parameters, [_shared_as(self.parameters[n], updates[n]) for n in names], alpha=-lr)

    def state_dict(self) -> dict[str, Tensor]:
        """All state by name: `muon.mean.NAME`."""
        return {f"muon.mean.{name}": tensor for name, tensor in self.mean.items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        _copy_into(self.state_dict(), state)


class Together:
    """Several optimizers that step as one."""

    def __init__(self, *parts: AdamW | Muon):
        self.parts = parts
        self.learning_rate = parts[0].learning_rate  # the one that a display shows

    def step(self, factor: float = 1.0) -> None:
        for part in self.parts:
            part.step(factor)

    def state_dict(self) -> dict[str, Tensor]:
        return {name: tensor for part in self.parts for name, tensor in part.state_dict().items()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for part in self.parts:
            part.load_state_dict(state)


Optimizer = AdamW | Muon | Adagrad | SGD | Together


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
) -> Optimizer:
    """`adamw`: one rate for all. `muon`: Muon with `matrix_learning_rate` for the matrices inside the blocks, AdamW
    with `learning_rate` for embeddings, head, norms and biases. `adagrad`: a rate for each number, no decay. `sgd`:
    plain descent with `momentum` (`nesterov` if asked) and `weight_decay`.

    Frozen parameters (`requires_grad=False`) are left out: no state is kept for them, in memory or in checkpoints.

    Raises:
        UsageError: there is no such optimizer, or nothing to train.
    """
    if kind not in OPTIMIZERS:
        raise UsageError(f"training.optimizer={kind!r} is unknown; {did_you_mean(kind, OPTIMIZERS)}")
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not parameters:
        raise UsageError("every parameter is frozen (requires_grad=False), so there is nothing to train; thaw one")
    if kind == "adagrad":
        return Adagrad(parameters, learning_rate=learning_rate, start=accumulator_start)
    if kind == "sgd":
        return SGD(
            parameters,
            learning_rate=learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
        )
    inside = {n: p for n, p in parameters.items() if _in_a_block(n) and p.dim() == 2} if kind == "muon" else {}
    outside = {n: p for n, p in parameters.items() if n not in inside}
    adamw = AdamW(outside, learning_rate=learning_rate, betas=betas, weight_decay=weight_decay)
    if not inside:
        return adamw
    return Together(
        Muon(
            inside,
            _joined_rows(model),
            learning_rate=matrix_learning_rate,
            momentum=momentum,
            weight_decay=weight_decay,
        ),
        adamw,
    )


# what each reads of a recipe's [training]
OPTIMIZERS: dict[str, tuple[str, ...]] = {
    "adamw": ("learning_rate", "beta1", "beta2", "weight_decay"),
    "muon": ("learning_rate", "matrix_learning_rate", "momentum", "beta1", "beta2", "weight_decay"),
    "adagrad": ("learning_rate", "accumulator_start"),
    "sgd": ("learning_rate", "momentum", "nesterov", "weight_decay"),
}


def _in_a_block(name: str) -> bool:
    """Whether a parameter is a block's: `blocks.0...` of one stack, `encoder.blocks.0...` of two."""
    return "blocks" in name.split(".")


def _joined_rows(model: nn.Module) -> dict[str, tuple[int, ...]]:
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


def plain_muon_update(
    p_RC: Tensor, grad_RC: Tensor, mean_RC: Tensor, *, learning_rate: float, momentum: float, weight_decay: float
) -> tuple[Tensor, Tensor]:
    """Muon's update of one matrix, written out: (parameter, momentum) afterwards; nothing is changed in place."""
    R, C = p_RC.shape
    mean_RC = momentum * mean_RC + (1 - momentum) * grad_RC
    ahead_RC = momentum * mean_RC + (1 - momentum) * grad_RC
    update_RC = math.sqrt(max(1.0, R / C)) * orthogonalise(ahead_RC.unsqueeze(0)).squeeze(0)
    return (1 - learning_rate * weight_decay) * p_RC - learning_rate * update_RC, mean_RC


def _gradient(p: nn.Parameter) -> Tensor:
    assert p.grad is not None
    return p.grad


def _whole(x: Tensor) -> Tensor:
    """A tensor itself, or all shards of a `DTensor` together (every rank must ask at the same time)."""
    return x.full_tensor() if hasattr(x, "full_tensor") else x


def _shared_as(p: Any, whole: Tensor) -> Tensor:
    """`whole`, sharded as `p` is, without communication: every rank holds all of it and keeps its own part."""
    if not hasattr(p, "full_tensor"):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, p.device_mesh, p.placements, src_data_rank=None)


def _own(x: Tensor) -> Tensor:
    """A tensor itself, or this rank's shard of a `DTensor`: enough for what works number by number."""
    return x.to_local() if hasattr(x, "to_local") else x


def _copy_into(own: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    for name, tensor in own.items():
        if name not in state or state[name].shape != tensor.shape:
            raise RunError(f"the checkpoint has no optimizer state {name} of shape {tuple(tensor.shape)}")
        tensor.copy_(state[name])
