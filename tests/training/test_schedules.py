"""Schedules at points that a person can work out."""

from __future__ import annotations

import math

import pytest

from glassformer.errors import UsageError
from glassformer.training.schedules import SCHEDULES, Schedule


def test_warm_up_rises_in_equal_steps_and_never_starts_at_zero():
    schedule = Schedule("cosine", steps=100, warmup_steps=4)
    assert [schedule(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert schedule(4) == 1.0


def test_cosine_is_nanogpts():
    """lr 1e-3 down to 1e-4 over 2,000 steps with 100 of warm-up: the formula of its train.py."""
    schedule = Schedule("cosine", steps=2000, warmup_steps=100, final_fraction=0.1)
    for step in (0, 50, 100, 101, 777, 1050, 1999):
        if step < 100:
            expected = 1e-3 * (step + 1) / 101
        else:
            ratio = (step - 100) / (2000 - 100)
            expected = 1e-4 + 0.5 * (1 + math.cos(math.pi * ratio)) * (1e-3 - 1e-4)
        assert 1e-3 * schedule(step) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        (Schedule("linear", steps=10, final_fraction=0.0), {5: 0.5}),
        (Schedule("linear", steps=10, final_fraction=0.2), {5: 0.6}),
        (
            Schedule("wsd", steps=100, final_fraction=0.0, cooldown_fraction=0.2),
            {0: 1, 50: 1, 80: 1, 90: 0.5, 99: 0.05},
        ),
    ],
)
def test_linear_and_wsd_at_points_worked_out_by_hand(schedule, factors):
    assert {step: schedule(step) for step in factors} == pytest.approx(factors)


def test_noam_is_the_papers_equation():
    """Vaswani et al. 2017, eq. 3, with 512 channels and a warm-up of 4,000: our 3,999 steps lead up to the 4,000th."""
    schedule, peak = Schedule("noam", steps=100_000, warmup_steps=3_999), (512 * 4_000) ** -0.5
    assert peak == pytest.approx(7e-4, rel=2e-3)
    for step in (0, 1, 999, 3_998, 3_999, 4_000, 15_999, 99_999):
        n = step + 1
        expected = 512**-0.5 * min(n**-0.5, n * 4_000**-1.5)
        assert peak * schedule(step) == pytest.approx(expected, rel=1e-12)
    assert schedule(3_999) == 1 and schedule(15_999) == 0.5  # four times as many steps, half the rate


def test_noam_does_not_know_how_long_the_run_is():
    short, long = (Schedule("noam", steps=n, warmup_steps=9, final_fraction=f) for n, f in ((50, 0.5), (9_000, 0.0)))
    assert [short(step) for step in range(50)] == [long(step) for step in range(50)]


@pytest.mark.parametrize("kind", SCHEDULES)
def test_every_schedule_stays_between_its_ends(kind):
    schedule = Schedule(kind, steps=37, warmup_steps=5, final_fraction=0.1)
    assert all(0 < schedule(step) <= 1 for step in range(37))
    end = {"constant": 1.0, "noam": math.sqrt(6 / 38)}.get(kind, 0.1)
    assert schedule(37) == pytest.approx(end)


def test_an_unknown_kind_gets_the_nearest_name():
    with pytest.raises(UsageError, match="did you mean cosine"):
        Schedule("cosin", steps=10)
