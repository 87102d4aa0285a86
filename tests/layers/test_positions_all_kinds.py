"""What every kind of positions promises: one answer in pieces and rows, tabled or computed, copied and compiled."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import shaken

from glassformer.layers import POSITIONS, SINUSOID_LAYOUTS, Positions, positions
from glassformer.models.counts import ShapesOnly

B, H, K, T, D, C = 2, 6, 3, 11, 10, 14
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 24}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{kind: (kind, {}) for kind in POSITIONS},
    **{f"sinusoidal, {layout}": ("sinusoidal", {"sinusoid_layout": layout}) for layout in SINUSOID_LAYOUTS},
    "rotary, in part": ("rotary", {"rotary_fraction": 0.4}),
    "rotary, scaled": ("rotary", {"rotary_scaling": YARN}),
    "relative, few buckets": ("relative", {"relative_buckets": 4, "relative_max_distance": 5}),
    "relative, both ways": ("relative", {"relative_buckets": 6, "relative_max_distance": 7, "causal": False}),
}
BY_DISTANCE = [name for name, (kind, _) in VARIANTS.items() if kind in ("none", "rotary", "alibi", "relative")]


def make(name: str, block_size: int = 64) -> Positions:
    """Built as a model builds it: every argument to every kind."""
    kind, changes = VARIANTS[name]
    fields: dict[str, Any] = {
        "n_embd": C, "n_head": H, "head_width": D, "block_size": block_size, "causal": True, "rotary_base": 100.0,
        "rotary_fraction": 1.0, "rotary_scaling": None, "relative_buckets": 8, "relative_max_distance": 9,
        "sinusoid_layout": "interleaved",
    }  # fmt: skip
    return shaken(POSITIONS[kind](**{**fields, **changes})).eval()


def vectors(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


X, Q, KEYS = vectors(B, T, C), vectors(B, H, T, D, seed=1), vectors(B, K, T, D, seed=2)


def scores(positions: Positions, pos_q: torch.Tensor, pos_k: torch.Tensor) -> torch.Tensor:
    """The scores of one query and one key vector, which stand at all of `pos_q` and `pos_k`: (H, T, S)."""
    q, k = vectors(H, 1, D, seed=3), vectors(H, 1, D, seed=4)
    q_HTD, k_HSD = q.expand(-1, len(pos_q), -1), k.expand(-1, len(pos_k), -1)
    q_HTD, k_HSD = positions.rotate(q_HTD, q_HTD, pos_q)[0], positions.rotate(k_HSD, k_HSD, pos_k)[1]
    bias = positions.bias(pos_q, pos_k)
    return q_HTD @ k_HSD.transpose(-2, -1) + (0 if bias is None else bias)


def everything(p: Positions, pos: torch.Tensor, x=X, q=Q, k=KEYS) -> list[torch.Tensor]:
    bias = p.bias(pos, pos)
    return [p.add(x, pos), *p.rotate(q, k, pos), x.new_zeros(H, 1, 1) if bias is None else bias]


@pytest.mark.parametrize("name", VARIANTS)
def test_a_kind_encodes_positions_in_one_way_and_none_in_no_way(name: str):
    """And what it says differs from position to position."""
    p, pos = make(name), torch.arange(T)
    x, q, k, bias = everything(p, pos)
    message = {"add": x is not X, "rotate": q is not Q, "bias": p.bias(pos, pos) is not None}
    how = {"learned": "add", "sinusoidal": "add", "rotary": "rotate", "alibi": "bias", "relative": "bias"}
    assert [what for what, text in message.items() if text] == [how[k] for k in [VARIANTS[name][0]] if k in how]
    shown = {"add": (x - X)[0], "rotate": p.rotate(Q[:, :, :1].expand_as(Q), KEYS, pos)[0][0, 0], "bias": bias[0].t()}
    for what in (what for what, text in message.items() if text):
        assert all((shown[what][0] != shown[what][t]).any() for t in range(1, T)), what


@pytest.mark.parametrize("offset", [0, 5, 47])
@pytest.mark.parametrize("name", VARIANTS)
def test_pieces_with_an_offset_are_slices_of_the_whole(name: str, offset: int):
    p, pos = make(name), torch.arange(offset, offset + T)
    x, q, k, bias = everything(p, pos)
    for a, b in ((0, 4), (4, 5), (5, T)):
        assert torch.equal(p.add(X[:, a:b], pos[a:b]), x[:, a:b])
        turned = p.rotate(Q[:, :, a:b], KEYS[:, :, a:b], pos[a:b])
        assert torch.equal(turned[0], q[:, :, a:b]) and torch.equal(turned[1], k[:, :, a:b])
        if (piece := p.bias(pos[a:b], pos)) is not None:
            assert torch.equal(piece, bias[:, a:b])
            assert torch.equal(p.bias(pos, pos[a:b]), bias[:, :, a:b])


@pytest.mark.parametrize("name", VARIANTS)
def test_rows_of_a_batch_may_stand_at_different_positions(name: str):
    p, pos = make(name), torch.stack([torch.arange(T), torch.arange(T).flip(0) * 3 + 7])
    together = everything(p, pos)
    for b in range(B):
        alone = everything(p, pos[b], X[b : b + 1], Q[b : b + 1], KEYS[b : b + 1])
        for ours, one in zip(together[:3], alone[:3], strict=True):
            assert torch.equal(ours[b : b + 1], one)
        if p.bias(pos, pos) is not None:
            assert torch.equal(together[3][b], alone[3])
            assert torch.equal(p.bias(pos, pos[b])[b], alone[3])  # one row of keys for all queries, and the reverse
            assert torch.equal(p.bias(pos[b], pos)[b], alone[3])


@pytest.mark.parametrize("name", BY_DISTANCE)
@given(shift=st.integers(0, 40), data=st.data())
@settings(max_examples=15, deadline=None)
def test_a_score_depends_on_the_distance_alone(name: str, shift: int, data):
    pos_q = torch.tensor(data.draw(st.lists(st.integers(0, 23), min_size=1, max_size=4)))
    pos_k = torch.tensor(data.draw(st.lists(st.integers(0, 23), min_size=1, max_size=5)))
    p = make(name)
    there = scores(p, pos_q + shift, pos_k + shift)
    torch.testing.assert_close(there, scores(p, pos_q, pos_k), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("name", VARIANTS)
def test_large_tables_are_never_built_and_change_nothing(name: str, monkeypatch):
    pos = torch.tensor([0, 1, 5, 63, 2, 17, 40, 62, 8, 9, 31])
    in_tables = everything(make(name), pos)
    monkeypatch.setattr(positions, "LARGEST_TABLE", 0)
    computed = everything(make(name), pos)
    for a, b in zip(in_tables, computed, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", [name for name in VARIANTS if name != "learned"])
def test_ten_million_positions_take_no_memory(name: str):
    """All but learned ones, whose numbers are parameters."""
    p = make(name, block_size=10_000_000)
    assert sum(t.numel() for t in (*p.parameters(), *p.buffers())) < 1000
    at = torch.tensor([9_999_990, 9_999_999])
    ours = scores(p, at, at) if name in BY_DISTANCE else p.add(torch.zeros(1, 2, C), at)
    assert ours.isfinite().all()
    if name in BY_DISTANCE and name != "none":
        torch.testing.assert_close(ours, scores(p, at - at.min(), at - at.min()), rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("largest", [2**22, 0], ids=["table", "computed"])
@pytest.mark.parametrize("name", VARIANTS)
def test_a_copy_and_a_compiled_one_say_the_same(name: str, largest: int, monkeypatch):
    """`fullgraph` refuses whatever would break the graph of a compiled model in two."""
    monkeypatch.setattr(positions, "LARGEST_TABLE", largest)
    p, pos = make(name), torch.arange(5, 5 + T)
    torch.compiler.reset()
    compiled: Callable[..., list[torch.Tensor]] = torch.compile(everything, backend="eager", fullgraph=True)
    for other, how in ((copy.deepcopy(p), everything), (p, compiled)):
        for a, b in zip(how(other, pos), everything(p, pos), strict=True):
            assert torch.equal(a, b)


@pytest.mark.parametrize("name", VARIANTS)
def test_counting_takes_shapes_and_no_memory(name: str):
    """`ShapesOnly` is how a plan counts the parameters of models that would not fit. Only what is learned is saved."""
    kind, changes = VARIANTS[name]
    with ShapesOnly():
        p = POSITIONS[kind](n_embd=C, n_head=H, head_width=D, block_size=64, **changes)
    assert all(parameter.is_meta for parameter in p.parameters())
    assert p.state_dict().keys() == dict(p.named_parameters()).keys()
    shapes = {"learned": [(64, C)], "relative": [(changes.get("relative_buckets", 32), H)]}
    assert [tuple(parameter.shape) for parameter in p.parameters()] == shapes.get(kind, [])


@pytest.mark.parametrize("name", VARIANTS)
def test_in_half_precision_everything_stays_there(name: str):
    p, pos = make(name).bfloat16(), torch.arange(40, 40 + T)
    exact = everything(make(name), pos)
    x, q, k = X.bfloat16(), Q.bfloat16(), KEYS.bfloat16()
    for rounded, full in zip(everything(p, pos, x, q, k), exact, strict=True):
        assert rounded.dtype == torch.bfloat16
        torch.testing.assert_close(rounded.float(), full, rtol=0.02, atol=0.05)
