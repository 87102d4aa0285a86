"""Attention in chunks and by FlexAttention: equal to the whole masked matrix; in chunks, never as large as it.

The whole matrix is written out here once more, with a softmax one can read. Sizes: B=2 H=3 D=5, chunks of 8. On a CPU
FlexAttention has a forward pass alone; the rest needs CUDA.
"""

from __future__ import annotations

from functools import partial

import pytest
import torch
import torch.nn.attention.flex_attention as flex
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from glassformer.errors import UsageError
from glassformer.layers import (
    AlibiPositions,
    BidirectionalWindow,
    Causal,
    Documents,
    Full,
    GraphMask,
    Mask,
    NoPositions,
    PaddingMask,
    Prefix,
    RelativePositions,
    Sinks,
    Window,
    sparse_attention,
)
from glassformer.layers.masks import FAR, Reach
from glassformer.layers.sparse_attention import (
    attend_by_flex,
    attend_locally,
    chunk_size,
    flex_supports,
    masked_attention,
    worth_chunking,
)

B, H, D, CHUNK, SCALE = 2, 3, 5, 8, 0.3


def written_out(q_BHTD, k_BHSD, v_BHSD, pos_q, pos_k, pattern: Mask, bias=None) -> torch.Tensor:
    """The whole matrix at once, without a kernel."""
    mask = pattern.mask(pos_q, pos_k)
    mask = mask[:, None] if mask.dim() == 3 else mask
    scores = q_BHTD @ k_BHSD.transpose(-2, -1) * SCALE + (0 if bias is None else bias(pos_q, pos_k))
    weights = torch.where(mask, scores, -1e30).softmax(dim=-1) * mask
    return weights @ v_BHSD


def differences(pattern: Mask, T: int, S: int, *, local: Mask | None = None, bias=None, chunk=CHUNK) -> float:
    """The largest difference between chunks and the whole, in the result and every gradient (in double precision).

    `local` is what the chunks are given in place of the pattern: a broken one, to see this notice it.
    """
    generator = torch.Generator().manual_seed(T * 100 + S)
    pos_k = torch.arange(S)
    pos_q = pos_k[S - T :]
    learned = [] if bias is None else list(bias.parameters())
    found = []
    for attend in (
        partial(attend_locally, attend=partial(masked_attention, scale=SCALE), chunk=chunk),
        written_out,
    ):
        generator.manual_seed(T * 100 + S)
        q, k, v = (torch.randn(B, H, n, D, generator=generator, dtype=torch.double) for n in (T, S, S))
        inputs = [x.requires_grad_() for x in (q, k, v)]
        graph = pattern if attend is written_out or local is None else local
        y = attend(*inputs, pos_q, pos_k, graph, bias=None if bias is None else bias.bias)
        found.append([y, *torch.autograd.grad((y * torch.linspace(-1, 1, D).double()).sum(), [*inputs, *learned])])
    assert all(x.isfinite().all() for x in found[0])
    return max((a - b).abs().max().item() for a, b in zip(*found, strict=True))


LOCAL = {
    **{f"window({n})": Window(n) for n in (1, 3, 9, 16, 99)},
    "with sinks": Window(5) | Sinks(3),
    "with more sinks than a chunk": Sinks(11) | Window(4),
    "with sinks, as a conjunction": Causal() & (Sinks(2) | BidirectionalWindow(6)),
    "bidirectional": BidirectionalWindow(4),
    "far ahead": BidirectionalWindow(11),
    "with padding": BidirectionalWindow(5) & PaddingMask(torch.tensor([6, 30])),
    "rows that see nothing": Window(3) & PaddingMask(torch.tensor([0, 9])),
    "documents": Causal() & Documents(torch.arange(40) // torch.tensor([[3], [11]])),
    "documents in a window": Window(4) & Documents(torch.arange(40) // torch.tensor([[3], [11]])),
    "graph": GraphMask.of([(i, j) for i in range(40) for j in range(40) if abs(i - j) in (0, 3, 7)], n=40),
}


WHOLE = [(T, T) for T in (1, 7, 8, 9, 16, 17, 40)]
AFTER_A_CACHE = [(1, 2), (1, 40), (3, 11), (8, 16), (9, 32), (16, 17), (31, 40)]


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize(("T", "S"), WHOLE + AFTER_A_CACHE)
def test_chunks_equal_the_whole(name, T, S):
    assert differences(LOCAL[name], T, S) < 1e-12


@pytest.mark.parametrize("chunk", [1, 2, 5, 13, 64, None])
def test_chunks_of_any_size_equal_the_whole(chunk):
    for pattern in (Window(6) | Sinks(2), BidirectionalWindow(3)):
        assert max(differences(pattern, T, 29, chunk=chunk) for T in (29, 17)) < 1e-12


@pytest.mark.parametrize("kind", [AlibiPositions, RelativePositions], ids=["alibi", "relative"])
def test_a_bias_is_computed_chunk_by_chunk(kind):
    """With its gradient, and never asked for more than a chunk and what it reaches."""
    positions = kind(n_head=H, relative_buckets=8, relative_max_distance=12, causal=True).double()
    for parameter in positions.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(3))
    asked, compute = [], positions.bias
    positions.bias = lambda pos_q, pos_k: asked.append((len(pos_q), len(pos_k))) or compute(pos_q, pos_k)
    for T, S in ((40, 40), (11, 40)):
        assert differences(Window(6) | Sinks(2), T, S, bias=positions) < 1e-12
        whole = asked.pop()  # the twin asks for everything
        assert whole == (T, S) and all(t <= CHUNK and s <= 2 * CHUNK + 2 for t, s in asked)
        asked.clear()


def test_rows_of_a_batch_may_stand_at_other_positions():
    """Row 0 begins at position 0, row 1 at 7, so that only row 0 has its sinks among the keys."""
    q, k, v = torch.randn(3, B, H, 21, D, generator=torch.Generator().manual_seed(0), dtype=torch.double)
    pos, pattern = torch.arange(21) + torch.tensor([[0], [7]]), Window(4) | Sinks(9)
    got = attend_locally(q, k, v, pos, pos, pattern, attend=partial(masked_attention, scale=SCALE), chunk=CHUNK)
    torch.testing.assert_close(got, written_out(q, k, v, pos, pos, pattern))


class Broken(Mask):
    """A pattern whose edges lie elsewhere than it says, or whose reach is another one."""

    reach = Reach(0, 0)

    def __init__(self, pattern: Mask, *, leak: int = 0, reach: Reach | None = None):
        self.pattern, self.leak, self.reach = pattern, leak, reach or pattern.reach

    def mask_mod(self, b, h, q, k):
        return self.pattern.mask_mod(b, h, q + self.leak, k)


WITH_SINKS = Window(5) | Sinks(3)


@pytest.mark.parametrize(
    ("pattern", "planted"),
    [
        *((pattern, {"leak": leak}) for pattern in (Window(9), WITH_SINKS) for leak in (1, -1)),
        (Window(10), {"reach": Reach(8, 0)}),  # too short by one, where blocks end just there
        (BidirectionalWindow(8), {"reach": Reach(8, 0)}),
        (WITH_SINKS, {"reach": Reach(4, 0, 2)}),
    ],
)
def test_planted_a_wrong_edge_or_a_reach_too_short_is_noticed(pattern, planted):
    assert differences(pattern, 40, 40, local=Broken(pattern)) < 1e-12
    assert differences(pattern, 40, 40, local=Broken(pattern, **planted)) > 1e-2


@pytest.mark.parametrize(
    ("where", "planted"),
    [
        ("bisect_left", lambda starts, t: max(len([s for s in starts if s < t]) - 1, 1)),  # a block of keys lost
        ("bisect_right", lambda starts, t: len([s for s in starts if s <= t]) + 1),
        ("_joined", lambda x, n, a, b, dim: torch.cat([x[0].narrow(dim, 0, max(n - 1, 0)), *x[1][a:b]], dim)),
        ("_joined", lambda x, n, a, b, dim: torch.cat([x[0], *x[1][a:b]], dim)),  # sinks counted twice at the start
    ],
    ids=["last block lost", "first block lost", "a sink lost", "sinks twice"],
)
def test_planted_mistakes_in_the_chunks_are_noticed(where, planted, monkeypatch):
    pattern = Window(9) | Sinks(3)
    monkeypatch.setattr(sparse_attention, where, planted)
    assert differences(pattern, 24, 40) > 1e-2 or differences(pattern, 40, 40) > 1e-2


def test_only_what_the_window_needs_is_read():
    """Everything older than the window of the first query is NaN, but for the sinks, and nothing changes."""
    S, T = 200, 3
    q, k, v = torch.randn(3, B, H, S, D, generator=torch.Generator().manual_seed(0))
    pos, pattern = torch.arange(S), Window(9) | Sinks(2)
    right = attend_locally(q[:, :, -T:], k, v, pos[-T:], pos, pattern)
    k[:, :, 2 : S - T - 8], v[:, :, 2 : S - T - 8] = torch.nan, torch.nan
    assert torch.equal(attend_locally(q[:, :, -T:], k, v, pos[-T:], pos, pattern), right)
    k[:, :, S - T - 8] = torch.nan
    assert attend_locally(q[:, :, -T:], k, v, pos[-T:], pos, pattern).isnan().any()


class Memory(TorchDispatchMode):
    """The largest tensor that any operation made, and the bytes kept for the backward pass."""

    def __init__(self):
        super().__init__()
        self.largest, self.kept = 0, 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.largest = max(self.largest, *(x.numel() for x in tree_leaves(out) if isinstance(x, torch.Tensor)), 0)
        return out

    def keep(self, x: torch.Tensor) -> torch.Tensor:
        self.kept += x.numel() * x.element_size()
        return x


def memory_of(attend, T: int) -> Memory:
    x, pos = torch.randn(1, 1, T, 4, requires_grad=True), torch.arange(T)
    with Memory() as memory, torch.autograd.graph.saved_tensors_hooks(memory.keep, lambda x: x):
        attend(x, x, x, pos, pos).sum().backward()
    return memory


@pytest.mark.parametrize("pattern", [Window(16), Window(16) | Sinks(4), BidirectionalWindow(8)], ids=str)
def test_memory_grows_with_the_length_and_not_with_its_square(pattern):
    def whole(q, k, v, pos_q, pos_k):
        return masked_attention(q, k, v, pattern.mask(pos_q, pos_k))

    once, twice = (memory_of(partial(attend_locally, mask=pattern), T) for T in (512, 1024))
    assert once.largest <= 512 * 16 and twice.largest <= 1024 * 16  # no T x T anywhere, forward or backward
    assert twice.kept < 2.1 * once.kept
    once, twice = (memory_of(whole, T) for T in (512, 1024))  # the measure sees the square
    assert once.largest >= 512**2 and twice.kept > 3 * once.kept


def test_chunks_are_worth_it_when_they_read_half_of_the_keys_at_most():
    assert [chunk_size(Window(w).reach) for w in (1, 32, 33, 100, 128, 5000)] == [32, 32, 64, 128, 128, 128]
    assert chunk_size(Reach(FAR - 1, FAR - 1)) == 128
    window = Window(64)  # chunks of 64 and 63 keys before each
    assert not worth_chunking(window, 253, 253) and worth_chunking(window, 254, 254)
    assert not any(worth_chunking(mask, 9999, 9999) for mask in (Causal(), Full(), Prefix(3), Causal() | window))
    assert not worth_chunking(window, 1, 127) and worth_chunking(window, 1, 128)  # one query after a cache


def test_what_chunks_cannot_do_is_refused_in_one_line():
    q, pos = torch.zeros(1, 1, 4, 2), torch.arange(4)
    with pytest.raises(UsageError, match=r"causal \| sinks\(2\) may look at any distance; .*window\(256\)$"):
        attend_locally(q, q, q, pos, pos, Causal() | Sinks(2))
    with pytest.raises(UsageError, match="4 queries for 3 keys"):
        attend_locally(q, q[:, :, 1:], q[:, :, 1:], pos, pos[1:], Window(2))


# FlexAttention: head width 16, 37 keys
F_D, F_S = 16, 37
FLEXED = {
    "causal": Causal(),
    "full": Full(),
    "window and sinks": Window(5) | Sinks(2),
    "prefix": Prefix(torch.tensor([0, 9])),
    "documents": Causal() & Documents(torch.arange(F_S) // torch.tensor([[4], [11]])),
    "a row that sees nothing": PaddingMask(torch.tensor([0, 30])),
    "graph": GraphMask.of([(i, (i * 5) % F_S) for i in range(F_S)], n=F_S, both_ways=True),
}
BIASES = {
    "none": NoPositions(),
    "alibi": AlibiPositions(n_head=H),
    "relative": RelativePositions(n_head=H, relative_buckets=8, relative_max_distance=12),
}
by_flex = pytest.mark.skipif(sparse_attention.flex_attention is None, reason="this PyTorch has no FlexAttention")
quiet = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


def flex_difference(mask: Mask, T: int, positions, *, flexed: Mask | None = None) -> float:
    """Between FlexAttention, with another mask if need be, and the matrix."""
    generator = torch.Generator().manual_seed(T)
    q, k, v = (torch.randn(B, H, n, F_D, generator=generator) for n in (T, F_S, F_S))
    pos_k = torch.arange(F_S)
    matrix = mask.mask(pos_k[F_S - T :], pos_k)
    matrix = matrix[:, None] if matrix.dim() == 3 else matrix
    with torch.no_grad():
        right = masked_attention(q, k, v, matrix, positions.bias(pos_k[F_S - T :], pos_k), scale=0.3)
        got = attend_by_flex(q, k, v, flexed or mask, scale=0.3, bias=positions.bias)
    return (got - right).abs().max().item()


@pytest.fixture
def uncompiled(monkeypatch):
    """Seconds a call go into tracing, which one test does once."""
    monkeypatch.setattr(flex, "_FLEX_ATTENTION_DISABLE_COMPILE_DEBUG", True, raising=False)


@by_flex
@quiet
@pytest.mark.parametrize("bias", BIASES)
@pytest.mark.parametrize("name", FLEXED)
def test_flex_equals_the_matrix(name, bias, uncompiled):
    for parameter in BIASES[bias].parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    for T in (F_S, 1, 5):  # whole, and after a cache
        assert flex_difference(FLEXED[name], T, BIASES[bias]) < 1e-5


@by_flex
@quiet
def test_flex_equals_the_matrix_traced():
    """As a GPU has it: the mask and the bias become part of the kernel's graph."""
    assert flex_difference(FLEXED["documents"], 5, BIASES["alibi"]) < 1e-5
    assert not flex_supports(torch.zeros(1, 1, 4, 16), torch.arange(4)), "on a CPU it has no backward pass"


@by_flex
@quiet
def test_flex_notices_a_planted_edge_and_layers_share_blocks(uncompiled):
    """Blocks are kept for masks of numbers only: one made for a batch would never be asked for again."""
    assert flex_difference(Window(5), F_S, NoPositions(), flexed=Window(6)) > 1e-2
    assert flex_difference(FLEXED["documents"], F_S, NoPositions(), flexed=Causal()) > 1e-2
    shared = sparse_attention._shared_blocks
    shared.cache_clear()
    for mask in (Window(5), Window(5), Window(4), FLEXED["documents"]):
        flex_difference(mask, F_S, NoPositions())
    assert (shared.cache_info().hits, shared.cache_info().misses) == (1, 2)


@by_flex
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("name", ["causal", "window and sinks"])
def test_flex_on_cuda_has_the_gradients_of_the_matrix(name):
    mask, device = FLEXED[name], torch.device("cuda")
    generator, gradients = torch.Generator().manual_seed(0), []
    inputs = [torch.randn(B, H, F_S, F_D, generator=generator).to(device).requires_grad_() for _ in range(3)]
    pos = torch.arange(F_S, device=device)
    assert flex_supports(inputs[0], pos) and not flex_supports(inputs[0], pos, dropout=0.1)
    for y in (attend_by_flex(*inputs, mask), masked_attention(*inputs, mask.mask(pos, pos))):
        gradients.append(torch.autograd.grad((y * torch.linspace(-1, 1, F_D, device=device)).sum(), inputs))
    for ours, right in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-2, atol=1e-2)
