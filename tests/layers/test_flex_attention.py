"""FlexAttention and the mask of the pattern say the same. On a CPU it has a forward pass alone; the rest needs CUDA."""

from __future__ import annotations

import pytest
import torch
import torch.nn.attention.flex_attention as flex

from glassformer.layers import (
    AlibiPositions,
    Causal,
    Documents,
    Edges,
    Full,
    Globals,
    Lengths,
    NoPositions,
    Prefix,
    RelativePositions,
    Sinks,
    Strided,
    Window,
    flex_attention,
)
from glassformer.layers.flex_attention import attend_by_flex, flex_serves
from glassformer.layers.local_attention import masked_attention

pytestmark = [
    pytest.mark.skipif(flex_attention.flex_attention is None, reason="this PyTorch has no FlexAttention"),
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
]
B, H, D, S = 2, 3, 16, 37
PATTERNS = {
    "causal": Causal(),
    "full": Full(),
    "window and sinks": Window(5) | Sinks(2),
    "strided": Window(3) | Strided(7),
    "globals": Globals(2) & Causal(),
    "prefix": Prefix(torch.tensor([0, 9])),
    "documents": Causal() & Documents(torch.arange(S) // torch.tensor([[4], [11]])),
    "a row that sees nothing": Lengths(torch.tensor([0, 30])),
    "edges": Edges.of([(i, (i * 5) % S) for i in range(S)], n=S, both_ways=True),
}
BIASES = {
    "none": NoPositions(),
    "alibi": AlibiPositions(n_head=H),
    "relative": RelativePositions(n_head=H, relative_buckets=8, relative_max_distance=12),
}


def difference(pattern, T: int, positions, *, flexed=None, device="cpu") -> float:
    """Between FlexAttention, on a pattern of its own if need be, and the mask."""
    generator = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(B, H, n, D, generator=generator).to(device) for n in (T, S, S))
    pos_k = torch.arange(S, device=device)
    mask = pattern.mask(pos_k[S - T :], pos_k)
    mask = mask[:, None] if mask.dim() == 3 else mask
    right = masked_attention(q, k, v, mask, positions.bias(pos_k[S - T :], pos_k), scale=0.3)
    got = attend_by_flex(q, k, v, flexed or pattern, scale=0.3, bias=positions.bias)
    return (got - right).abs().max().item()


@pytest.fixture(autouse=True)
def without_the_compiler(request, monkeypatch):
    """Seconds a call go into tracing, which the last test does once."""
    if "traced" not in request.node.name:
        monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True)


@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", PATTERNS)
@torch.no_grad()
def test_flex_equals_the_mask(name, bias):
    positions = BIASES[bias]
    for parameter in positions.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    for T in (S, 1, 5):  # whole, and after a cache
        assert difference(PATTERNS[name], T, positions) < 1e-5


@torch.no_grad()
def test_flex_equals_the_mask_traced():
    """As a GPU has it: the pattern and the bias become part of the kernel's graph."""
    assert difference(PATTERNS["documents"], 5, BIASES["alibi"]) < 1e-5


@torch.no_grad()
def test_planted_a_wrong_edge_is_noticed():
    assert difference(Window(5), S, NoPositions(), flexed=Window(6)) > 1e-2
    assert difference(PATTERNS["documents"], S, NoPositions(), flexed=Causal()) > 1e-2


@torch.no_grad()
def test_the_layers_of_a_model_share_their_blocks():
    """Only for patterns of numbers: one made for a batch would be kept after it, and never be asked for again."""
    shared = flex_attention._shared_blocks
    shared.cache_clear()
    for pattern in (Window(5), Window(5), Window(4), PATTERNS["documents"]):
        difference(pattern, S, NoPositions())
    assert (shared.cache_info().hits, shared.cache_info().misses) == (1, 2)


def test_a_cpu_is_not_served():
    assert not flex_serves(torch.zeros(1, 1, 4, 16), torch.arange(4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["causal", "window and sinks", "strided"])
def test_on_cuda_gradients_equal_those_of_the_mask(name):
    pattern, device = PATTERNS[name], torch.device("cuda")
    generator, gradients = torch.Generator().manual_seed(0), []
    inputs = [torch.randn(B, H, S, D, generator=generator).to(device).requires_grad_() for _ in range(3)]
    pos = torch.arange(S, device=device)
    assert flex_serves(inputs[0], pos) and not flex_serves(inputs[0], pos, dropout=0.1)
    for y in (attend_by_flex(*inputs, pattern), masked_attention(*inputs, pattern.mask(pos, pos))):
        gradients.append(torch.autograd.grad((y * torch.linspace(-1, 1, D, device=device)).sum(), inputs))
    for ours, right in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-2, atol=1e-2)
