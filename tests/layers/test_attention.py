"""Attention: the fused path, the eager path and a plain loop over the nodes of a graph give the same.

Sizes are all different: B=2 T=7 C=11 D=5, and H, K as in the table.
"""

from __future__ import annotations

import math

import pytest
import torch
from toys import shaken

from glassformer.layers import Attention, Causal, Full, NoPositions, RMSNorm, Window, attention
from glassformer.layers.masks import Mask
from glassformer.lessons.attention_as_messages import messages

B, T, C, D = 2, 7, 11, 5
HEADS = {"multi-head": (3, 3), "grouped": (6, 2), "multi-query": (3, 1)}


class OddsOnly(Mask):
    """Queries at odd positions see even positions before them; queries at even positions see nobody."""

    def mask_mod(self, b, h, q, k):
        return (q % 2 == 1) & (k % 2 == 0) & (k <= q)


MASKS = {
    "causal": (Causal(), lambda i, j: j <= i),
    "full": (Full(), lambda i, j: True),
    "window": (Window(3), lambda i, j: i - 3 < j <= i),
    "causal and full": (Causal() & Full(), lambda i, j: j <= i),
    "window or odds": (Window(2) | OddsOnly(), lambda i, j: i - 2 < j <= i or (i % 2 == 1 and j % 2 == 0 and j <= i)),
    "rows that see nothing": (OddsOnly(), lambda i, j: i % 2 == 1 and j % 2 == 0 and j <= i),
}


def toy_attention(heads: str = "grouped", *, qk_norm: bool = True, width: int = D, seed: int = 0) -> Attention:
    H, K = HEADS[heads]
    layer = Attention(n_embd=C, n_head=H, n_kv_head=K, head_width=width, bias=True, qk_norm=qk_norm, norm_eps=1e-3)
    return shaken(layer, seed).eval()


def toy_input(t: int = T, seed: int = 1) -> torch.Tensor:
    return torch.randn(B, t, C, generator=torch.Generator().manual_seed(seed))


def run(layer, x, pattern, *, path, monkeypatch):
    """Through one of the two paths; a listener takes the eager one."""
    monkeypatch.setattr(attention, "EAGER_MAX_KEYS", 0)
    layer.tap_pattern.listener = (lambda p: None) if path == "eager" else None
    try:
        return layer(x, torch.arange(x.shape[1]), NoPositions(), pattern)
    finally:
        layer.tap_pattern.listener = None


def rms_norm(vector: list[float], norm: RMSNorm) -> list[float]:
    root = math.sqrt(sum(x * x for x in vector) / len(vector) + norm.eps)
    return [x / root * s for x, s in zip(vector, norm.weight.tolist(), strict=True)]


def by_the_graph(layer: Attention, x_BTC: torch.Tensor, sees) -> torch.Tensor:
    """The same in plain Python: project, split into heads, norm, the lessons' loop over the nodes, project back."""
    H, K = layer.n_head, layer.n_kv_head
    answer = torch.zeros_like(x_BTC)
    for b, x_TC in enumerate(x_BTC):
        rows = layer.qkv(x_TC).tolist()
        queries, keys, values = [], [], []  # [head][time] -> vector
        for h in range(H):
            queries.append([row[h * D : (h + 1) * D] for row in rows])
        for k in range(K):
            at = (H + k) * D
            keys.append([row[at : at + D] for row in rows])
            at = (H + K + k) * D
            values.append([row[at : at + D] for row in rows])
        if layer.query_norm is not None:
            queries = [[rms_norm(q, layer.query_norm) for q in head] for head in queries]
            keys = [[rms_norm(k, layer.key_norm) for k in head] for head in keys]
        heard = [messages(queries[h], keys[h * K // H], values[h * K // H], sees) for h in range(H)]
        joined = [[number for h in range(H) for number in heard[h][t]] for t in range(len(rows))]
        answer[b] = layer.out(torch.tensor(joined))
    return answer


@pytest.mark.parametrize("pattern", MASKS)
@pytest.mark.parametrize("qk_norm", [False, True], ids=["plain", "qk-norm"])
@pytest.mark.parametrize("heads", HEADS)
@pytest.mark.parametrize("path", ["eager", "fused"])
@torch.no_grad()
def test_both_paths_equal_the_loop_over_the_graph(path, heads, qk_norm, pattern, monkeypatch):
    layer, x = toy_attention(heads, qk_norm=qk_norm), toy_input()
    ours, sees = MASKS[pattern]
    torch.testing.assert_close(
        run(layer, x, ours, path=path, monkeypatch=monkeypatch), by_the_graph(layer, x, sees), rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("pattern", MASKS)
@pytest.mark.parametrize("heads", HEADS)
def test_both_paths_have_the_same_gradients(heads, pattern, monkeypatch):
    """Also where a row sees nothing: its gradient is zero there and not 0/0."""
    gradients = {}
    for path in ("eager", "fused"):
        layer, x = toy_attention(heads), toy_input().requires_grad_()
        y = run(layer, x, MASKS[pattern][0], path=path, monkeypatch=monkeypatch)
        (y * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
        gradients[path] = {"x": x.grad, **{name: p.grad for name, p in layer.named_parameters()}}
    for name, eager in gradients["eager"].items():
        assert eager.isfinite().all(), name
        torch.testing.assert_close(eager, gradients["fused"][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("path", ["eager", "fused"])
@torch.no_grad()
def test_a_row_that_sees_nothing_hears_exactly_nothing(path, monkeypatch):
    layer, heard = toy_attention(), []
    layer.tap_heads.listener = heard.append
    run(layer, toy_input(), OddsOnly(), path=path, monkeypatch=monkeypatch)
    assert (heard[0][:, :, 0::2] == 0).all() and (heard[0][:, :, 1::2] != 0).all()


@torch.no_grad()
def test_a_listener_to_the_scores_alone_takes_the_eager_path(monkeypatch):
    monkeypatch.setattr(attention, "EAGER_MAX_KEYS", 0)
    layer, scores = toy_attention("grouped", qk_norm=False), []
    layer.tap_scores.listener = scores.append
    layer(toy_input(), torch.arange(T), NoPositions(), Causal())
    assert scores[0].shape == (B, 6, T, T)


@pytest.mark.parametrize("pattern", MASKS)
@torch.no_grad()
def test_the_pattern_that_one_hears_is_a_distribution_over_what_may_be_seen(pattern):
    layer, heard = toy_attention(), []
    ours, sees = MASKS[pattern]
    layer.tap_pattern.listener = heard.append
    layer(toy_input(), torch.arange(T), NoPositions(), ours)
    for i in range(T):
        seen = [j for j in range(T) if sees(i, j)]
        assert (heard[0][:, :, i, [j for j in range(T) if j not in seen]] == 0).all()
        torch.testing.assert_close(heard[0][:, :, i].sum(-1), torch.full((B, 6), float(bool(seen))))


@torch.no_grad()
def test_a_mask_that_is_off_by_one_is_noticed(monkeypatch):
    """The comparison above has teeth: the two nearest wrong masks are far outside its tolerance."""
    layer, x = toy_attention(), toy_input()
    right = by_the_graph(layer, x, lambda i, j: j <= i)
    for wrong in (lambda i, j: j < i, lambda i, j: j <= i + 1):
        assert (by_the_graph(layer, x, wrong) - right).abs().max() > 1e-2


def test_dropout_falls_on_the_weights_in_training_only():
    """Half of the weights are dropped and the others doubled.

    The share kept of 4,800 draws: 0.5 +- 6 standard deviations of 0.0072, one false alarm in 5e8 (the seed is set).
    """
    torch.manual_seed(0)
    layer = Attention(n_embd=C, n_head=3, n_kv_head=3, head_width=D, bias=True, qk_norm=False, norm_eps=1e-5)
    layer.weight_dropout = 0.5
    layer.tap_pattern.listener = lambda p: torch.ones_like(p)
    heard = []
    layer.tap_heads.listener = heard.append
    with torch.no_grad():
        layer.qkv.weight.zero_()
        layer.qkv.bias.copy_(torch.cat([torch.zeros(30), torch.ones(15)]))  # values are all one
    layer(torch.zeros(1, 40, C), torch.arange(40), NoPositions(), Full())
    kept = heard[0][0, :, :, 0].sum() / 2  # every kept weight is 2 and brings a value of 1
    assert abs(kept / (3 * 40 * 40) - 0.5) < 6 * 0.5 / (3 * 40 * 40) ** 0.5
    layer.eval()(torch.zeros(1, 40, C), torch.arange(40), NoPositions(), Full())
    assert (heard[1] == 40).all()


@pytest.mark.parametrize("mask", [Causal(), Window(3)], ids=str)
def test_both_paths_drop_weights_and_keep_the_mean(mask, monkeypatch):
    """Fused and eager draw differently, but each really drops, and over 3,000 draws the mean of what a head heard is
    what it hears undropped: within 6 deviations at 210 places, one false alarm in 2e6 (the seed is set)."""
    for path in ("eager", "fused"):
        torch.manual_seed(0)
        layer, x, heard = toy_attention("multi-head"), toy_input()[:1].expand(3000, -1, -1), []
        layer.tap_heads.listener = heard.append
        with torch.no_grad():
            run(layer, x[:1], mask, path=path, monkeypatch=monkeypatch)
            layer.weight_dropout = 0.3
            run(layer.train(), x, mask, path=path, monkeypatch=monkeypatch)
        still, drawn = heard
        deviation = drawn.std(dim=0)
        assert (deviation > 0).all()
        assert ((drawn.mean(dim=0) - still[0]).abs() < 6 * deviation / 3000**0.5).all()
