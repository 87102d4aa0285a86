"""Norms and feed-forward layers against their formulas, written with Python's own numbers."""

from __future__ import annotations

import math
import statistics
from typing import NamedTuple

import pytest
import torch
import torch.nn.functional as F
from toys import shaken

from glassformer.layers import (
    ACTIVATIONS,
    NORMS,
    ClampedFeedForward,
    FeedForward,
    GatedFeedForward,
    LayerNorm,
    RMSNorm,
    ZeroCenteredRMSNorm,
)
from glassformer.layers.block import Block, OutputNormBlock, ParallelBlock, PostNormBlock, SandwichBlock
from glassformer.layers.norms import HandWrittenRMSNorm

X = [3.0, -1.0, 4.0, 1.0, -5.0]


def test_norms_by_their_formulas():
    """The distance from the mean in deviations; and, keeping the mean, the share of the root mean square."""
    layer, rms = shaken(LayerNorm(5, eps=0.1)), shaken(RMSNorm(5, eps=0.1))
    mean, deviation = statistics.fmean(X), math.sqrt(statistics.pvariance(X) + 0.1)
    scale, shift = layer.weight.tolist(), layer.bias.tolist()
    expected = [(x - mean) / deviation * s + b for x, s, b in zip(X, scale, shift, strict=True)]
    assert layer(torch.tensor(X)).tolist() == pytest.approx(expected, abs=1e-5)
    root = math.sqrt(statistics.fmean(x * x for x in X) + 0.1)
    expected = [x / root * s for x, s in zip(X, rms.weight.tolist(), strict=True)]
    assert rms(torch.tensor(X)).tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 7), (2, 3, 5, 7)], ids=str)
def test_the_hand_written_gradient_of_rms_norm_is_that_of_the_formula(shape: tuple[int, ...]):
    """In float64, by finite differences and against autograd through PyTorch's own; also for a turned tensor."""
    generator = torch.Generator().manual_seed(0)
    x, weight, g = (torch.randn(s, dtype=torch.float64, generator=generator) for s in (shape, (7,), shape))
    x, weight = x.requires_grad_(), weight.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, w: HandWrittenRMSNorm.apply(x, w, 0.1), (x, weight))
    for form in (lambda t: t, lambda t: t.transpose(0, -2) if t.dim() > 2 else t):
        ours = HandWrittenRMSNorm.apply(form(x), weight, 0.1)
        plain = F.rms_norm(form(x), (7,), weight, 0.1)
        torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
        got, expected = (torch.autograd.grad(y, (x, weight), form(g)) for y in (ours, plain))
        torch.testing.assert_close(got, expected, rtol=1e-12, atol=1e-12)


def test_rms_norm_takes_the_hand_written_path_when_training_on_a_cpu():
    norm, x = RMSNorm(5), torch.tensor([X])
    assert norm(x).grad_fn.name() == "HandWrittenRMSNormBackward"
    with torch.no_grad():
        plain = norm(x)
    torch.testing.assert_close(norm(x), plain, rtol=1e-6, atol=1e-6)
    assert norm.bfloat16()(x.bfloat16()).grad_fn.name() != "HandWrittenRMSNormBackward"


@pytest.mark.parametrize("gradients", [True, False])
@pytest.mark.parametrize("name", NORMS)
def test_bf16_vectors_and_an_fp32_scale_as_under_autocast(name: str, gradients: bool, torch_warnings):
    """Computed in fp32 and rounded once: next to every result is the one that float64 gives, rounded to bf16."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(11, 3, 7, generator=generator).bfloat16().transpose(0, 1)
    norm = shaken(NORMS[name](7, eps=0.1))
    exact = shaken(NORMS[name](7, eps=0.1)).double()
    for module, inputs in ((norm, x.clone()), (exact, x.double())):
        with torch.autocast("cpu", torch.bfloat16), torch.set_grad_enabled(gradients):
            y = module(inputs.requires_grad_(gradients))
        assert y.dtype == inputs.dtype
        module.result, module.inputs = y.detach(), inputs
        if gradients:
            y.backward(torch.cos(torch.arange(y.numel())).view(y.shape).bfloat16().to(y.dtype))
    agree = norm.result == exact.result.bfloat16()
    assert agree.float().mean() > 0.98  # a scale rounded to bf16 gives 0.75
    torch.testing.assert_close(norm.result.double(), exact.result, rtol=2**-8, atol=2**-8)
    if gradients:
        torch.testing.assert_close(norm.weight.grad.double(), exact.weight.grad, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(norm.inputs.grad.double(), exact.inputs.grad, rtol=2**-7, atol=2**-7)
    assert torch_warnings() == []


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("name", NORMS)
def test_every_norm_is_built_alike_and_only_layer_norm_may_have_a_bias(name: str, bias: bool):
    assert len(list(NORMS[name](5, bias=bias).parameters())) == 1 + (bias and name == "layernorm")


def test_a_zero_centered_norm_keeps_the_difference_from_one():
    """The same numbers and gradients as an RMS norm whose scale is one more; fresh, they are the same norm."""
    fresh, norm, plain = ZeroCenteredRMSNorm(5), shaken(ZeroCenteredRMSNorm(5, eps=0.1)), RMSNorm(5, eps=0.1)
    with torch.no_grad():
        plain.weight.copy_(norm.weight + 1)
    x = torch.tensor([X, X[::-1]])
    assert torch.equal(fresh(x), RMSNorm(5)(x))
    assert torch.equal(norm(x), plain(x))
    assert norm.weight.grad is None
    for one in (norm, plain):
        one(x).square().sum().backward()
    assert torch.equal(norm.weight.grad, plain.weight.grad)


@torch.no_grad()
def test_a_zero_centered_norm_in_bf16_holds_what_a_scale_in_bf16_could_not():
    """From one to two bf16 has steps of 1/128, so a scale of 1.003 would be 1, and 7 beside 1 (root mean square 5)
    would give 1.4, which is 179.2 steps: 179. With the difference added in fp32 it is 1.4042, 179.7 steps: 180."""
    x = torch.tensor([1.0, 7.0], dtype=torch.bfloat16)
    norm, plain = ZeroCenteredRMSNorm(2, eps=0.0).bfloat16(), RMSNorm(2, eps=0.0).bfloat16()
    norm.weight.fill_(0.003)
    plain.weight.fill_(1.003)
    assert plain(x)[1] == 179 / 128 and norm(x)[1] == 180 / 128
    assert norm(x).dtype == torch.bfloat16


def formula(name: str, x: float) -> float:
    return {
        "gelu": lambda: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
        "gelu_new": lambda: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
        "quick_gelu": lambda: x / (1 + math.exp(-1.702 * x)),
        "relu": lambda: max(x, 0.0),
        "relu2": lambda: max(x, 0.0) ** 2,
        "silu": lambda: x / (1 + math.exp(-x)),
    }[name]()


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_against_their_formulas(name: str):
    points = [-3.0, -1.0, -0.1, 0.0, 0.5, 2.0]
    got = ACTIVATIONS[name](torch.tensor(points)).tolist()
    assert got == pytest.approx([formula(name, x) for x in points], abs=1e-5)


@torch.no_grad()
def made_of(layer: torch.nn.Module, first: list[float]) -> torch.nn.Module:
    """A gated layer C=1, F=1 with these two numbers for gate and up, and 1 behind."""
    layer.gate_up.weight.copy_(torch.tensor(first)[:, None])
    layer.down.weight.fill_(1.0)
    return layer


def test_plain_feed_forward_by_hand():
    """C=1, F=2: hidden relu(2x + 1), relu(-3x + 0); out 5 h0 + 7 h1 - 1. At x=1: 3, 0 -> 14. At x=-2: 0, 6 -> 41."""
    layer = FeedForward(n_embd=1, n_hidden=2, activation="relu", bias=True)
    with torch.no_grad():
        layer.up.weight.copy_(torch.tensor([[2.0], [-3.0]]))
        layer.up.bias.copy_(torch.tensor([1.0, 0.0]))
        layer.down.weight.copy_(torch.tensor([[5.0, 7.0]]))
        layer.down.bias.fill_(-1.0)
    assert layer(torch.tensor([[[1.0], [-2.0]]])).flatten().tolist() == [14, 41]


def test_the_gate_is_the_first_half_and_goes_through_the_activation():
    """relu(2x) * (-3x). At x=1: -6. At x=-1 the gate is shut: 0."""
    layer = made_of(GatedFeedForward(n_embd=1, n_hidden=1, activation="relu", bias=False), [2.0, -3.0])
    assert layer(torch.tensor([[[1.0], [-1.0]]])).flatten().tolist() == [-6, 0]


def test_a_clamped_gate_multiplies_up_and_one_within_the_limit():
    """Limit 3: min(relu(2x), 3) * (clamp(-3x) + 1). At x=1: 2 * (-3 + 1) = -4. At x=2 both are at the limit:
    3 * (-3 + 1) = -6. At x=-2 the gate is shut, however low it is: 0."""
    layer = ClampedFeedForward(n_embd=1, n_hidden=1, activation="relu", bias=False, limit=3.0)
    assert made_of(layer, [2.0, -3.0])(torch.tensor([[[1.0], [2.0], [-2.0]]])).flatten().tolist() == [-4, -6, 0]


class Times(torch.nn.Module):
    """Stands in for a layer: multiplies, and takes whatever else it is given."""

    def __init__(self, factor: float):
        super().__init__()
        self.factor = factor

    def forward(self, x, *others):
        return self.factor * x


def heard_in(block: Block, memory: object = None) -> tuple[float, dict[str, float]]:
    """What a block makes of 1, and what its taps hear."""
    heard = {}
    for tap in (block.tap_before, block.tap_middle, block.tap_after):
        tap.listener = lambda x, tap=tap: heard.update({tap.name.rpartition(".")[2]: x.item()})
    return block(torch.ones(1, 1, 1), None, None, None, memory=memory).item(), heard


class Made(NamedTuple):
    """What a block of norm 2, attention 3, norm 5 and feed-forward 11 makes of 1; its norms before, behind, of sum."""

    block: type[Block]
    middle: float
    end: float
    norms: tuple[int | None, int | None, int | None]
    after: tuple[int, ...] = ()
    crossing: float | None = None  # the end, with a cross-attention 19 of norm 17


MADE = [
    Made(Block, middle=1 + 2 * 3, end=7 + 7 * 5 * 11, norms=(2, None, None), crossing=(7 + 7 * 17 * 19) * 56),
    Made(PostNormBlock, middle=(1 + 3) * 2, end=(8 + 8 * 11) * 5, norms=(None, None, 2)),
    Made(OutputNormBlock, middle=1 + 3 * 2, end=7 + 7 * 11 * 5, norms=(None, 2, None), crossing=(7 + 7 * 19 * 17) * 56),
    Made(ParallelBlock, middle=1 + 2 * 3, end=7 + 1 * 5 * 11, norms=(2, None, None)),
    Made(SandwichBlock, middle=1 + 2 * 3 * 7, end=43 + 43 * 5 * 11 * 13, norms=(2, 7, None), after=(7, 13, 23),
         crossing=(43 + 43 * 17 * 19 * 23) * (1 + 5 * 11 * 13)),
]  # fmt: skip


@pytest.mark.parametrize("made", MADE, ids=lambda made: made.block.__name__)
def test_each_kind_of_block_by_hand(made: Made):
    numbers = (2, 3, 5, 11) if made.crossing is None else (2, 3, 5, 11, 17, 19)
    more = {"after": [Times(n) for n in made.after]} if made.after else {}
    plain = made.block(*map(Times, numbers[:4]), **more)
    assert heard_in(plain) == (made.end, {"before": 1, "middle": made.middle, "after": made.end})
    assert tuple(norm and norm.factor for norm in plain.norms("attention")) == made.norms
    assert {norm.factor for norm in plain.norms("feedforward") if norm} <= {5, 13}
    if made.crossing is not None:
        crossing = made.block(*map(Times, numbers), **more)
        assert heard_in(crossing, memory=object())[0] == pytest.approx(made.crossing, rel=1e-6)  # fp32
