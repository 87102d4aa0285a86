"""Gradients that are written out, against autograd through the plain formulas, in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from glassformer.layers import ACTIVATIONS, GatedFeedForward, RotaryPositions, feedforward, lora, positions
from glassformer.layers.lora import LoRALinear


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def both_ways(
    monkeypatch: pytest.MonkeyPatch, where: object, layer: nn.Module, run: Callable[[nn.Module], Tensor]
) -> list[list[Tensor | None]]:
    """Result and gradients of all parameters of two copies of a layer: by hand, and by autograd."""
    found = []
    for by_hand in (True, False):
        copied = copy.deepcopy(layer)
        if not by_hand:
            monkeypatch.setattr(where, "pays_by_hand", lambda *tensors: False)
        y = run(copied)
        nodes, names = [y.grad_fn], ""
        while nodes:
            node = nodes.pop()
            names += node.name()
            nodes += [after for after, _ in node.next_functions if after is not None]
        assert ("HandWritten" in names) == by_hand
        y.backward(draw(*y.shape))
        found.append([y.detach(), *(p.grad for p in copied.parameters())])
    monkeypatch.undo()
    return found


def test_swiglu(monkeypatch):
    layer = GatedFeedForward(n_embd=5, n_hidden=7, activation="silu", bias=True).double()
    torch.testing.assert_close(*both_ways(monkeypatch, feedforward, layer, lambda layer: layer(draw(2, 3, 5))))
    other = GatedFeedForward(n_embd=5, n_hidden=7, activation="gelu", bias=True).double()
    gate, up = other.gate_up(draw(3, 5)).chunk(2, dim=-1)
    torch.testing.assert_close(other(draw(3, 5)), other.down(ACTIVATIONS["gelu"](gate) * up))


@pytest.mark.parametrize("fraction", [1.0, 0.5])
@pytest.mark.parametrize("pos", [torch.arange(3), torch.tensor([[4, 5, 6], [0, 1, 2]])], ids=["one", "each row"])
def test_rotation(monkeypatch, fraction: float, pos: Tensor):
    """Also of a part of the channels, and of heads that lie side by side in memory."""
    rotary = RotaryPositions(head_width=8, block_size=9, rotary_fraction=fraction).double()
    linear = nn.Linear(5, 5 * 8).double()

    def run(linear: nn.Module) -> Tensor:
        q, k = linear(draw(2, 3, 5)).view(2, 3, 5, 8).transpose(1, 2).split((3, 2), dim=1)
        return torch.cat(rotary.rotate(q, k, pos), dim=1)

    torch.testing.assert_close(*both_ways(monkeypatch, positions, linear, run))


@pytest.mark.parametrize("parts", [(6,), (3, 2, 1)], ids=str)
@pytest.mark.parametrize("first", [True, False], ids=["reads data", "reads a layer"])
def test_lora(monkeypatch, parts: tuple[int, ...], first: bool):
    below, linear = nn.Linear(5, 5), nn.Linear(5, 6)
    linear.requires_grad_(False)
    layer = LoRALinear(linear, parts, rank=2, alpha=3.0)
    for b in layer.lora_b:
        nn.init.normal_(b)
    both = nn.Sequential(nn.Identity() if first else below, layer).double()
    results = both_ways(monkeypatch, lora, both, lambda both: both(draw(2, 3, 5)))
    torch.testing.assert_close(*results)
    assert sum(g is None for g in results[0]) == 2  # weight and bias are frozen
    dropping = LoRALinear(linear, parts, rank=2, alpha=3.0, dropout=0.5)
    assert "HandWritten" not in dropping(draw(3, 5)).grad_fn.name()
