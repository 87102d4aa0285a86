"""Attention as messages on a graph: equal to the fused kernel on a text's graph, and at home on any other."""

from __future__ import annotations

import random

import pytest
import torch
import torch.nn.functional as F

from glassformer.lessons import attention_as_messages as twin

N, D, E = 9, 5, 3  # nodes, width of queries and keys, width of values


def spoken(dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(N, width, generator=generator, dtype=torch.float64).to(dtype) for width in (D, D, E))


def by_the_loop(q, k, v, edges, order=None) -> torch.Tensor:
    heard = twin.messages(q.tolist(), k.tolist(), v.tolist(), lambda i, j: (i, j) in edges, order)
    return torch.tensor(heard, dtype=q.dtype)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_on_a_text_it_is_the_fused_kernel(dtype, within):
    q, k, v = spoken(dtype)
    fused = F.scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
    assert torch.allclose(by_the_loop(q, k, v, twin.causal(N)), fused, rtol=0, atol=within)


@pytest.mark.parametrize("name", twin.GRAPHS)
def test_on_any_graph_it_is_a_masked_softmax(name):
    q, k, v = spoken()
    edges = twin.GRAPHS[name](N)
    allowed = torch.tensor([[(i, j) in edges for j in range(N)] for i in range(N)])
    assert allowed.any(dim=1).all()
    scores = (q @ k.T / D**0.5).masked_fill(~allowed, float("-inf"))
    assert torch.allclose(by_the_loop(q, k, v, edges), scores.softmax(dim=-1) @ v, rtol=0, atol=1e-12)


def test_the_order_of_the_turns_does_not_matter():
    q, k, v = spoken()
    orders = [None, list(range(N))[::-1], random.Random(2).sample(range(N), N)]
    first, *others = [by_the_loop(q, k, v, twin.grid(N), order) for order in orders]
    assert all(torch.equal(first, other) for other in others)


def test_who_listens_to_no_one_hears_nothing():
    q, k, v = spoken()
    heard = by_the_loop(q, k, v, {(2, 0), (4, 1), (4, 3)})
    assert heard.abs().sum(dim=1).nonzero().flatten().tolist() == [2, 4]
    assert torch.equal(heard[2], v[0])  # one speaker has the whole share


def test_cross_attention_has_two_sets_of_nodes():
    q, k, v = spoken()
    heard = torch.tensor(twin.messages(q[:2].tolist(), k.tolist(), v.tolist(), lambda i, j: True), dtype=q.dtype)
    assert torch.allclose(heard, F.scaled_dot_product_attention(q[None, :2], k[None], v[None])[0], rtol=0, atol=1e-12)


def test_a_large_score_does_not_overflow():
    assert twin.softmax([1000.0, 999.0, -1000.0]) == pytest.approx([0.7310586, 0.2689414, 0.0])


def test_the_graphs():
    assert twin.causal(3) == {(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2)}
    assert len(twin.full(4)) == 16
    assert twin.ring(5) == {(i, j) for i in range(5) for j in range(5) if (i - j) % 5 in (0, 1, 4)}
    assert twin.tree(4) == {(0, 0), (1, 1), (2, 2), (3, 3), (1, 0), (0, 1), (2, 0), (0, 2), (3, 1), (1, 3)}
    places = [(i // 3, i % 3) for i in range(9)]
    near = {
        (i, j) for i, a in enumerate(places) for j, b in enumerate(places) if abs(a[0] - b[0]) + abs(a[1] - b[1]) < 2
    }
    assert twin.grid(9) == near


def test_a_round_reads_all_before_it_changes_any():
    q, k, v = (torch.randn(4, 4, generator=torch.Generator().manual_seed(n)).double() for n in range(3))
    x = torch.randn(N, 4, generator=torch.Generator().manual_seed(3)).double()
    graph = twin.Graph(x.tolist(), twin.ring(N), q.tolist(), k.tolist(), v.tolist())
    heard = torch.tensor(graph.round(random.Random(0)), dtype=torch.float64)
    assert torch.allclose(heard, by_the_loop(x @ q.T, x @ k.T, x @ v.T, twin.ring(N)), rtol=0, atol=1e-12)
    assert torch.allclose(torch.tensor(graph.vectors, dtype=torch.float64), x + heard)  # a residual stream


def test_news_travels_one_edge_a_round(capsys):
    twin.main(n=16)
    rounds = {line.split()[0]: line.split(": ")[1].split() for line in capsys.readouterr().out.splitlines()}
    assert rounds["causal"] == rounds["full"] == ["1", "16"]
    assert rounds["ring"] == ["1", "3", "5", "7", "9", "11", "13", "15", "16"]
    assert rounds["tree"] == ["1", "3", "7", "15", "16"]
    assert rounds["grid"] == ["1", "3", "6", "10", "13", "15", "16"]
