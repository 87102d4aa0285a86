"""A mixture of experts: each token visits the few that its router likes best."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from toys import shaken, toy_ids, toy_model

from glassformer.layers import Experts, FeedForward, balance_loss
from glassformer.taps import listening
from glassformer.tasks import NextToken
from glassformer.training import LossModule


def toy_experts(n_expert: int = 5, active: int = 2) -> Experts:
    def make() -> nn.Module:
        return FeedForward(n_embd=6, n_hidden=7, activation="gelu", bias=True)

    return shaken(Experts(n_embd=6, n_expert=n_expert, active=active, make=make))


def by_hand(mixture: Experts, x: torch.Tensor) -> torch.Tensor:
    """Token by token, expert by expert."""
    out = torch.zeros_like(x)
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            scores = (mixture.router.weight @ x[b, t]).tolist()
            best = sorted(range(len(scores)), key=lambda e: -scores[e])[: mixture.active]
            total = sum(math.exp(scores[e]) for e in best)
            for e in best:
                out[b, t] += math.exp(scores[e]) / total * mixture.experts[e](x[b : b + 1, t : t + 1])[0, 0]
    return out


@pytest.mark.parametrize("active", [1, 2, 5])
def test_equals_the_loop_over_tokens(active: int):
    mixture = toy_experts(active=active)
    x = torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mixture(x), by_hand(mixture, x), rtol=1e-5, atol=1e-5)


def test_the_load_is_shown_and_balance_is_one_when_all_are_visited_alike():
    mixture = toy_experts(n_expert=4, active=1).train()
    with torch.no_grad():
        mixture.router.weight.zero_()
        mixture.router.weight[:, :4] = 9 * torch.eye(4)
    x, loads = torch.eye(6)[:4].unsqueeze(0), []  # token t likes expert t
    with listening(mixture, "load", lambda name, x: loads.append(x.tolist())):
        mixture(x)
        assert float(balance_loss(mixture)) == pytest.approx(1.0, abs=1e-6)
        mixture(x[:, :1].expand(1, 4, 6))
    assert loads == [[0.25] * 4, [1.0, 0.0, 0.0, 0.0]]
    assert float(balance_loss(mixture)) == pytest.approx(4 * math.exp(9) / (math.exp(9) + 3), rel=1e-5)


def test_training_adds_the_balance_loss_and_reports_do_not():
    model = toy_model("modern", n_expert=3, balance_weight=0.5).train()
    ids = toy_ids(2, 7)
    total, count, _ = LossModule(model, NextToken().loss)(ids[:, :-1], ids[:, 1:])
    plain, _, _ = NextToken().loss(model, (ids[:, :-1], ids[:, 1:]))
    assert float(total) == pytest.approx(float(plain + 0.5 * count * balance_loss(model)), rel=1e-6)
    total.backward()
    assert model.blocks[0].feedforward.router.weight.grad.any()
    rows = NextToken().rows(model, (ids[:, :-1], ids[:, 1:]))
    assert float(rows.sums_B.sum()) == pytest.approx(float(plain), rel=1e-5)


def test_a_model_without_experts_has_no_balance():
    assert balance_loss(toy_model()) is None
