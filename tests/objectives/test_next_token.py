"""Next token: a sum of losses and the count behind it, so that it does not matter how a step was cut up."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from toys import toy_ids, toy_model

from glassformer.objectives import OBJECTIVES, NextToken


def batch(rows: int = 6, t: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    ids = toy_ids(rows, t + 1)
    return ids[:, :-1], ids[:, 1:]


class AlwaysSaysTwo(torch.nn.Module):
    """V=3; probabilities 1/7, 2/7, 4/7 at every position."""

    def forward(self, ids_BT):
        return torch.tensor([1.0, 2.0, 4.0]).log().expand(*ids_BT.shape, 3)


def test_by_hand():
    """Targets 2 and 0: ln(7/4) + ln 7."""
    loss, count, _ = NextToken().loss(AlwaysSaysTwo(), (torch.tensor([[0, 2]]), torch.tensor([[2, 0]])))
    assert loss.item() == pytest.approx(math.log(7 / 4) + math.log(7)) and count == 2


def test_sum_over_count_is_the_mean_cross_entropy():
    model, (inputs, targets) = toy_model(), batch()
    loss, count, _ = NextToken().loss(model, (inputs, targets))
    assert count == 42
    torch.testing.assert_close(loss / count, F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten()))


@pytest.mark.parametrize("cut", [(6,), (3, 3), (1, 2, 3), (5, 1)], ids=str)
def test_micro_batches_of_any_size_give_the_gradient_of_the_whole(cut: tuple[int, ...]):
    """Sum of sums over the sum of counts, in float64, to 1e-12. A mean of means would be wrong for (1, 2, 3)."""
    gradients = {}
    for pieces in ((6,), cut):
        model = toy_model().double()
        inputs, targets = batch()
        total = 0
        for x, y in zip(inputs.split(pieces), targets.split(pieces), strict=True):
            loss, count, _ = NextToken().loss(model, (x, y))
            loss.backward()
            total += count
        gradients[pieces] = [p.grad / total for p in model.parameters()]
    for whole, summed in zip(gradients[(6,)], gradients[cut], strict=True):
        torch.testing.assert_close(summed, whole, rtol=1e-12, atol=1e-12)


def test_half_precision_logits_are_summed_in_full():
    """In bf16 a sum of 640 losses would stop growing at about 256 of them."""
    model = toy_model().to(torch.bfloat16)
    loss, count, _ = NextToken().loss(model, batch(rows=64, t=10))
    assert loss.dtype == torch.float32 and count == 640
    exact = F.cross_entropy(model(batch(64, 10)[0]).double().flatten(0, 1), batch(64, 10)[1].flatten(), reduction="sum")
    assert loss.item() == pytest.approx(exact.item(), rel=1e-4)


def test_a_double_stays_double():
    """So that runs in float64 can be held equal to 1e-9, which float32 losses would not allow."""
    model, (inputs, targets) = toy_model().double(), batch()
    loss, _, _ = NextToken().loss(model, (inputs, targets))
    exact = F.cross_entropy(model(inputs).flatten(0, 1), targets.flatten(), reduction="sum")
    assert loss.dtype == torch.float64 and loss.item() == pytest.approx(exact.item(), rel=1e-14)


def test_the_objective_is_known_by_its_name():
    assert OBJECTIVES["next_token"] is NextToken
