"""Held-out loss: the mean over all targets, with an interval that holds what it promises."""

from __future__ import annotations

import json
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from toys import toy_ids, toy_model

from glassformer.evaluation import LossEstimate
from glassformer.tasks import evaluate_loss


class Uniform(nn.Module):
    """Every token is equally likely, always: its loss is ln V, whatever the text."""

    def __init__(self, vocab_size: int):
        super().__init__()
        self.level = nn.Parameter(torch.zeros(vocab_size))

    def forward(self, ids_BT):
        return self.level.expand(*ids_BT.shape, -1)


class TwoTokens(nn.Module):
    """Whatever comes, the next token is 1 with probability p. Loss: -ln p for a one and -ln (1 - p) for a nought."""

    def __init__(self, p: float):
        super().__init__()
        self.logits = nn.Parameter(torch.tensor([math.log(1 - p), math.log(p)]))

    def forward(self, ids_BT):
        return self.logits.expand(*ids_BT.shape, 2)


def windows(n: int, t: int, *, vocab_size: int = 61, batch: int = 3) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """n windows of t + 1 random tokens as batches of (inputs, targets); the last batch may be smaller."""
    ids = toy_ids(n, t + 1, vocab_size=vocab_size)
    return [(rows[:, :-1], rows[:, 1:]) for rows in ids.split(batch)]


@pytest.mark.parametrize("vocab_size", [2, 61, 65])
def test_a_uniform_model_loses_ln_v_and_is_torn_between_v_tokens(vocab_size: int):
    estimate = evaluate_loss(Uniform(vocab_size), windows(7, 5, vocab_size=vocab_size), bytes_per_token=1.0)
    assert estimate.loss == pytest.approx(math.log(vocab_size), rel=1e-6)
    assert estimate.perplexity == pytest.approx(vocab_size, rel=1e-5)
    assert estimate.bits_per_byte == pytest.approx(math.log2(vocab_size), rel=1e-6)
    assert estimate.n == 35 and estimate.interval == pytest.approx(0, abs=1e-6)


def test_by_hand():
    """p = 3/4. Windows 1 1 and 0 1: losses 2 ln(4/3) and ln 4 + ln(4/3); mean (ln 4 + 3 ln(4/3)) / 4.

    Both windows differ from the mean by d = (ln 4 - ln(4/3)) / 2 = ln(3) / 2, so the deviation of the sum is
    sqrt(2 * 2 d^2) = 2 d, that of the mean of 4 targets d / 2, and 1.96 of these are the interval.
    """
    batches = [(torch.zeros(2, 2, dtype=torch.long), torch.tensor([[1, 1], [0, 1]]))]
    estimate = evaluate_loss(TwoTokens(0.75), batches, bytes_per_token=2.0)
    assert estimate.loss == pytest.approx((math.log(4) + 3 * math.log(4 / 3)) / 4)
    assert estimate.interval == pytest.approx(1.96 * math.log(3) / 4)
    assert estimate.bits_per_byte == pytest.approx(estimate.loss / math.log(2) / 2)


def test_equals_the_direct_computation_whatever_the_batches():
    """Windows of two lengths in batches of 3, 3, 1 and 2: each target counts once, not each batch."""
    model, batches = toy_model(), windows(7, 5) + windows(2, 11)
    losses = [F.cross_entropy(model(x).flatten(0, 1), y.flatten(), reduction="none") for x, y in batches]
    estimate = evaluate_loss(model, batches)
    assert estimate.n == 7 * 5 + 2 * 11
    assert estimate.loss == pytest.approx(torch.cat(losses).mean().item(), rel=1e-6)
    singly = [(x[None], y[None]) for xs, ys in batches for x, y in zip(xs, ys, strict=True)]
    again = evaluate_loss(model, singly)
    assert (again.loss, again.interval) == pytest.approx((estimate.loss, estimate.interval), rel=1e-5)


def test_the_interval_holds_the_truth_95_times_of_100():
    """400 texts of 60 windows, each with its own share of ones (so tokens of a window are not independent).

    Half of all targets are ones. Of 400 intervals 380 +- 4.4 should hold the truth; 5 deviations are allowed for luck
    and 6 for the normal curve in place of t: a false alarm less than once in a million (and the seed is set). An
    interval that took tokens for independent would hold it less than 280 times.
    """
    generator = torch.Generator().manual_seed(0)
    p, held = 0.8, 0
    truth = -(math.log(p) + math.log(1 - p)) / 2
    for _ in range(400):
        share = torch.rand(60, 1, generator=generator)
        targets = (torch.rand(60, 10, generator=generator) < share).long()
        estimate = evaluate_loss(TwoTokens(p), [(torch.zeros_like(targets), targets)])
        held += abs(estimate.loss - truth) <= estimate.interval
    assert 352 <= held <= 402


def test_one_window_shows_no_spread_so_nothing_is_known():
    estimate = evaluate_loss(toy_model(), windows(1, 5))
    assert estimate.interval == math.inf and estimate.bits_per_byte is None
    assert json.loads(json.dumps(estimate.to_dict(), allow_nan=False))["interval"] is None


def test_an_absurd_loss_has_a_finite_perplexity():
    assert math.isfinite(LossEstimate(1e9, 1, 0.0, None).perplexity)
