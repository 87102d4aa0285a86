"""Low-rank adaptation: a frozen matrix plus a product of two thin ones, which are trained.

    y = W x + (alpha / r) B A x         W (out, in) frozen, A (r, in) drawn at random, B (out, r) zero at the start

Hu et al. 2021, https://arxiv.org/abs/2106.09685, section 4.1. A matrix of ours may be several of a Hugging Face family,
one above the other (query, key and value); each of these parts has its own A and B, so that an adapter means the same
in `peft`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from glassformer.layers.by_hand import pays_by_hand

LORA = ("lora_a", "lora_b")
M = TypeVar("M", bound=nn.Module)


class LoRALinear(nn.Linear):
    """A linear layer with an adapter; its own weight and bias are those of `linear`, frozen.

    Args:
        parts: rows of the output that have an A and a B of their own. rank: r. alpha: the product counts alpha / r.
        dropout: on the input of the adapter.
    """

    def __init__(self, linear: nn.Linear, parts: Sequence[int], *, rank: int, alpha: float, dropout: float = 0.0):
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight, self.bias = linear.weight, linear.bias
        self.parts, self.rank, self.scale, self.dropout = tuple(parts), rank, alpha / rank, dropout
        new_zeros = self.weight.detach().new_zeros
        self.lora_a = nn.ParameterList(new_zeros(rank, self.in_features) for _ in parts)
        self.lora_b = nn.ParameterList(new_zeros(n, rank) for n in parts)
        for a in self.lora_a:
            nn.init.kaiming_uniform_(a, a=math.sqrt(5))  # as peft

    def forward(self, x: Tensor) -> Tensor:
        """(..., in) -> (..., out)."""
        if self._by_hand(x):
            return HandWrittenLoRA.apply(x, self.weight, self.bias, self.scale, *self.lora_a, *self.lora_b)  # type: ignore[no-any-return, no-untyped-call]
        low = F.linear(F.dropout(x, self.dropout, self.training), torch.cat([*self.lora_a])) * self.scale
        up = torch.block_diag(*self.lora_b) if len(self.parts) > 1 else self.lora_b[0]  # (out, parts r)
        y = F.linear(x, self.weight, self.bias)
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), up.mT).view(y.shape)

    def _by_hand(self, x: Tensor) -> bool:
        frozen = not self.weight.requires_grad and (self.bias is None or not self.bias.requires_grad)
        drops, casts = self.training and self.dropout > 0, torch.is_autocast_enabled("cpu")
        return frozen and not drops and not casts and pays_by_hand(x, self.weight, *self.lora_a, *self.lora_b)

    def merged_weight(self) -> Tensor:
        """W + (alpha / r) B A, (out, in)."""
        products = [b @ a for a, b in zip(self.lora_a, self.lora_b, strict=True)]
        return self.weight.detach() + self.scale * torch.cat(products).detach()


class HandWrittenLoRA(torch.autograd.Function):
    """`LoRALinear` with its gradients written out: each part of an output is added to in place, with its own A and B,
    and no product is made for the zeros between them. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, scale: float, *ab: Tensor) -> Tensor:
        a, b = ab[: len(ab) // 2], ab[len(ab) // 2 :]
        x_NI = x.reshape(-1, x.shape[-1])
        low_NR = x_NI @ torch.cat(a).mT
        y_NO = F.linear(x_NI, weight, bias)
        for y, low, b_i in _parts(y_NO, low_NR, b):
            y.addmm_(low, b_i.mT, alpha=scale)
        ctx.save_for_backward(x_NI, low_NR, weight, *ab)
        ctx.scale = scale
        return y_NO.view(*x.shape[:-1], -1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x_NI, low_NR, weight, *ab = ctx.saved_tensors
        a, b = ab[: len(ab) // 2], ab[len(ab) // 2 :]
        g_NO, g_low_NR, g_x = g.reshape(-1, g.shape[-1]), torch.empty_like(low_NR), None
        for part, g_low, b_i in _parts(g_NO, g_low_NR, b):
            torch.mm(part, b_i, out=g_low)
        g_low_NR *= ctx.scale
        if ctx.needs_input_grad[0]:
            g_x = (g_NO @ weight).addmm_(g_low_NR, torch.cat(a)).view(*g.shape[:-1], -1)
        g_a = (g_low_NR.mT @ x_NI).split([len(a_i) for a_i in a])
        g_b = [((low.mT @ part) * ctx.scale).mT for part, low, _ in _parts(g_NO, low_NR, b)]
        return g_x, None, None, None, *g_a, *g_b


def _parts(y_NO: Tensor, low_NR: Tensor, b: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """(its columns of the output, its r columns of the low-rank vectors, its B) of each part."""
    columns, ranks = zip(*(b_i.shape for b_i in b), strict=True)
    return zip(y_NO.split(columns, dim=1), low_NR.split(ranks, dim=1), b, strict=True)


def add_lora(
    model: nn.Module, parts: Mapping[str, Sequence[int]], *, rank: int, alpha: float, dropout: float = 0.0
) -> None:
    """Freeze a model and give some of its linear layers an adapter.

    parts: rows of the parts of each layer's output, by the name of the layer.
    """
    model.requires_grad_(False)
    for name, sizes in parts.items():
        owner, _, attribute = name.rpartition(".")
        linear = model.get_submodule(name)
        assert isinstance(linear, nn.Linear)
        adapted = LoRALinear(linear, sizes, rank=rank, alpha=alpha, dropout=dropout)
        setattr(model.get_submodule(owner), attribute, adapted)


def shared_copy(model: M, *, trained: bool = True) -> M:
    """A copy of a model that shares its weights; to be given another adapter, which changes no other copy.

    trained: whether weights that are trained are shared too; else the copy has its own.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors if trained or not tensor.requires_grad})


def without_lora(model: M) -> M:
    """The model without its adapters, in eval mode: a view that shares the frozen weights and costs no memory."""
    view = shared_copy(model)
    for name, layer in list(lora_layers(view)):
        _put_plain(view, name, layer, layer.weight)
    return view.eval()


def merged_copy(model: M) -> M:
    """A copy of a model with its adapters merged; it shares the weights that no adapter changes."""
    twin = shared_copy(model)
    for name, layer in list(lora_layers(twin)):
        _put_plain(twin, name, layer, nn.Parameter(layer.merged_weight(), requires_grad=False))
    return twin


def lora_layers(model: nn.Module) -> Iterator[tuple[str, LoRALinear]]:
    """The adapted layers of a model, by name."""
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoRALinear))


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The tensors of all adapters, and of a head that is trained beside them, by name; {} without adapters."""
    return trained_state(model) if any(lora_layers(model)) else {}


def trained_state(module: nn.Module) -> dict[str, Tensor]:
    """The tensors of a module that are trained, by name."""
    return {name: parameter.detach() for name, parameter in module.named_parameters() if parameter.requires_grad}


def is_lora(name: str) -> bool:
    """Whether a tensor of a state dict belongs to an adapter."""
    return any(part in LORA for part in name.split("."))


def base_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model without its adapters."""
    return {name: tensor for name, tensor in model.state_dict().items() if not is_lora(name)}


def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The state dict of a model without adapters that computes the same."""
    merged = {f"{name}.weight": layer.merged_weight() for name, layer in lora_layers(model)}
    return {**base_state(model), **merged}


def merge_lora(model: nn.Module) -> None:
    """Add the adapters of a model to its weights, in place; the layers are plain ones again, and trainable."""
    for name, layer in list(lora_layers(model)):
        _put_plain(model, name, layer, nn.Parameter(layer.merged_weight()))
    model.requires_grad_(True)


def _put_plain(model: nn.Module, name: str, layer: LoRALinear, weight: Tensor) -> None:
    """A linear layer with this weight in place of an adapted one."""
    plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
    plain.weight, plain.bias = weight, layer.bias  # type: ignore[assignment]
    owner, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(owner), attribute, plain)
