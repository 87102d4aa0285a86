"""The measured peak is one that a product reaches."""

from __future__ import annotations

import pytest

from glassformer.training import devices
from glassformer.training.devices import peak_flops


def test_the_peak_is_two_operations_a_product_over_the_shortest_time(monkeypatch):
    """A clock that a test turns: products take 8, 5 and 7 hundredths of a second, and then the time is up."""
    ticks = iter([0.0, 0.0, 0.08, 0.09, 0.1, 0.15, 0.14, 0.2, 0.27, 9.0])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(ticks))
    measured = devices._measured_peak.__wrapped__("cpu", "fp32", 1)
    assert measured == pytest.approx(2 * 512**3 / 0.05)


def test_it_is_measured_once():
    assert 1e8 < peak_flops("cpu", "fp32") == peak_flops("cpu", "fp32")
