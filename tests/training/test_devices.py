"""The measured peak is one that a product reaches, and the displays show a run's share of it."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from glassformer.training import devices
from glassformer.training.devices import peak_flops
from glassformer.training.display import LivePanel, PlainLines


def test_the_peak_is_two_operations_a_product_over_the_shortest_time(monkeypatch):
    """A clock that a test turns: products take 8, 5 and 7 hundredths of a second, and then the time is up."""
    ticks = iter([0.0, 0.0, 0.08, 0.09, 0.1, 0.15, 0.14, 0.2, 0.27, 9.0])
    monkeypatch.setattr(devices.time, "perf_counter", lambda: next(ticks))
    measured = devices._measured_peak.__wrapped__("cpu", "fp32", 1)
    assert measured == pytest.approx(2 * 512**3 / 0.05)


def test_it_is_measured_once():
    assert 1e8 < peak_flops("cpu", "fp32") == peak_flops("cpu", "fp32")


class Recorded:
    """What a display asks of a trainer, with a record as the loop would make it."""

    class settings:
        steps = 2

    class run:
        path = "runs/x"

    step = 0
    n_answers = 65


RECORD = {"step": 1, "loss": 4.0, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1000}


def test_both_displays_show_utilisation_and_do_without_it():
    for record, shown in (({**RECORD, "mfu": 0.3456}, True), (RECORD, False)):
        plain, panel = PlainLines(io.StringIO()), LivePanel(io.StringIO())
        screen = Console(width=80, record=True, file=io.StringIO())
        for display in (plain, panel):
            display.on_start(Recorded())
            display.on_step(record)
        screen.print(panel._panel())
        panel.on_end()
        for text in (plain.stream.getvalue(), screen.export_text()):
            assert "1,000 tokens/s" in text and ("utilisation 35 %" in text) == shown
