"""Norms and feed-forward layers against their formulas, written with Python's own numbers."""

from __future__ import annotations

import math
import statistics

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


def test_layer_norm_is_the_distance_from_the_mean_in_deviations():
    norm = shaken(LayerNorm(5, eps=0.1))
    scale, shift = norm.weight.tolist(), norm.bias.tolist()
    mean, deviation = statistics.fmean(X), math.sqrt(statistics.pvariance(X) + 0.1)
    expected = [(x - mean) / deviation * s + b for x, s, b in zip(X, scale, shift, strict=True)]
    assert norm(torch.tensor(X)).tolist() == pytest.approx(expected, abs=1e-5)


def test_rms_norm_keeps_the_mean_and_divides_by_the_root_mean_square():
    norm = shaken(RMSNorm(5, eps=0.1))
    root = math.sqrt(statistics.fmean(x * x for x in X) + 0.1)
    expected = [x / root * s for x, s in zip(X, norm.weight.tolist(), strict=True)]
    assert norm(torch.tensor(X)).tolist() == pytest.approx(expected, abs=1e-5)


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


def test_by_hand():
    """3 and -3: mean 0, deviation 3. 1 and 7: root mean square 5."""
    assert LayerNorm(2, eps=0.0)(torch.tensor([3.0, -3.0])).tolist() == [1, -1]
    assert RMSNorm(2, eps=0.0)(torch.tensor([1.0, 7.0])).tolist() == pytest.approx([0.2, 1.4])


def test_every_norm_is_built_alike_and_only_layer_norm_may_have_a_bias():
    counts = {(name, bias): len(list(NORMS[name](5, bias=bias).parameters())) for name in NORMS for bias in (0, 1)}
    assert counts.pop(("layernorm", 1)) == 2
    assert counts == {("layernorm", 0): 1} | {
        (name, bias): 1 for name in ("rmsnorm", "zero_centered_rmsnorm") for bias in (0, 1)
    }


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
    """C=1, F=1: relu(2x) * (-3x). At x=1: -6. At x=-1 the gate is shut: 0."""
    layer = GatedFeedForward(n_embd=1, n_hidden=1, activation="relu", bias=False)
    with torch.no_grad():
        layer.gate_up.weight.copy_(torch.tensor([[2.0], [-3.0]]))
        layer.down.weight.fill_(1.0)
    assert layer(torch.tensor([[[1.0], [-1.0]]])).flatten().tolist() == [-6, 0]


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


def test_a_block_adds_and_norms_before_each_layer():
    """x=1: attention hears norm 2 -> 2 * 3 = 6, stream 7; feed-forward hears 7 * 5 = 35, * 11 = 385; stream 392."""
    parts = [Times(n) for n in (2, 3, 5, 11)]
    assert heard_in(Block(*parts)) == (392, {"before": 1, "middle": 7, "after": 392})


def test_a_post_norm_block_norms_the_sum():
    """x=1: attention says 3, the sum 4 is normed to 8; feed-forward says 8 * 11 = 88, the sum 96 is normed to 480."""
    parts = [Times(n) for n in (2, 3, 5, 11)]
    assert heard_in(PostNormBlock(*parts)) == (480, {"before": 1, "middle": 8, "after": 480})


def test_a_sandwich_norms_input_and_output_of_a_layer():
    """x=1: attention hears 2 and says 6, of which the second norm makes 6 * 7 = 42: stream 43. Feed-forward hears
    43 * 5 = 215 and says 215 * 11 = 2365, of which the second norm makes 2365 * 13 = 30745: stream 30788."""
    parts, after = [Times(n) for n in (2, 3, 5, 11)], [Times(7), Times(13)]
    assert heard_in(SandwichBlock(*parts, after=after)) == (30788, {"before": 1, "middle": 43, "after": 30788})


def test_an_output_norm_block_norms_what_a_layer_writes_alone():
    """x=1: attention writes 3, normed to 6: stream 7. Feed-forward writes 7 * 11 = 77, normed to 385: stream 392."""
    parts = [Times(n) for n in (2, 3, 5, 11)]
    assert heard_in(OutputNormBlock(*parts)) == (392, {"before": 1, "middle": 7, "after": 392})
    crossing = OutputNormBlock(*parts, Times(17), Times(19))  # 7 + 7 * 19 * 17 = 2268; 2268 * (1 + 11 * 5)
    assert heard_in(crossing, memory=object())[0] == 2268 * 56


def test_layers_side_by_side_read_the_same_stream():
    """x=1: attention reads 2 and writes 6; feed-forward reads 5, of the same 1, and writes 55: stream 62."""
    parts = [Times(n) for n in (2, 3, 5, 11)]
    assert heard_in(ParallelBlock(*parts)) == (62, {"before": 1, "middle": 7, "after": 62})


@pytest.mark.parametrize(
    ("block", "norms"),
    [(Block, (2, None, None)), (ParallelBlock, (2, None, None)), (OutputNormBlock, (None, 2, None)),
     (PostNormBlock, (None, None, 2)), (SandwichBlock, (2, 7, None))],
)  # fmt: skip
def test_a_block_names_the_norms_around_its_layers(block: type[Block], norms: tuple):
    parts = [Times(n) for n in (2, 3, 5, 11)]
    made = block(*parts, **({"after": [Times(7), Times(13)]} if block is SandwichBlock else {}))
    assert tuple(norm and norm.factor for norm in made.norms("attention")) == norms
    assert {norm.factor for norm in made.norms("feedforward") if norm} <= {5, 13}


def test_a_clamped_gate_multiplies_up_and_one_within_the_limit():
    """C=1, F=1, limit 3, relu: min(2x, 3) * (clamp(-3x) + 1). At x=1: 2 * (-3 + 1) = -4. At x=2 both are at the limit:
    3 * (-3 + 1) = -6. At x=-2 the gate is shut, however low it is: 0."""
    layer = ClampedFeedForward(n_embd=1, n_hidden=1, activation="relu", bias=False, limit=3.0)
    with torch.no_grad():
        layer.gate_up.weight.copy_(torch.tensor([[2.0], [-3.0]]))
        layer.down.weight.fill_(1.0)
    assert layer(torch.tensor([[[1.0], [2.0], [-2.0]]])).flatten().tolist() == [-4, -6, 0]


def test_a_sandwich_around_cross_attention_too():
    """The stream 43 goes through norm 17 and layer 19: 13889, and the norm behind, 23: 319447; stream 319490. Then
    5, 11 and 13 as before: 319490 * 715 = 228435350, and the stream 228754840."""
    parts, after = [Times(n) for n in (2, 3, 5, 11, 17, 19)], [Times(7), Times(13), Times(23)]
    text, _ = heard_in(SandwichBlock(*parts, after=after), memory=object())
    assert text == pytest.approx(228_754_840, rel=1e-6)  # fp32
