"""The panel and the plain lines of a real small run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from glassformer import recipes
from glassformer.training import Callback
from glassformer.training.display import LivePanel, PlainLines, clock, display_for

TINY = ["model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.block_size=5", "training.steps=6"]
SEEN = [*TINY, "training.batch_size=2", "training.eval_every=3", "training.sample_every=3", "training.sample_tokens=30"]


def test_clock():
    assert (clock(0), clock(61.2), clock(3723)) == ("0:00", "1:01", "1:02:03")


def test_plain_lines_tell_loss_validation_speed_and_time_left(play, tmp_path):
    out = io.StringIO()
    recipes.train(None, SEEN, data=str(play), out=tmp_path / "run", callbacks=[PlainLines(out)])
    lines = out.getvalue().splitlines()
    third = next(line for line in lines if line.startswith("step 3/6"))
    for word in ("loss", "smoothed", "validation", "lr", "gradient", "tokens/s", "left"):
        assert word in third
    assert "validation" not in lines[0]
    assert "--- sample after step 3:" in lines


def test_the_live_panel_shows_every_number_of_the_last_line(play, tmp_path):
    screen = io.StringIO()
    panel = LivePanel(screen)
    recipes.train(None, SEEN, data=str(play), out=tmp_path / "run", callbacks=[panel])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(panel._panel())
    text = console.export_text()
    for label in ("step", "loss", "smoothed", "validation", "best", "learning rate", "gradient", "tokens/s", "left"):
        assert label in text
    record = panel.record
    for shown in ("6 / 6", f"{record['loss']:.4f}", f"{record['val_loss']:.4f}", f"{record['lr']:.2e}", "after step 6"):
        assert shown in text
    assert all(len(line) <= 80 for line in text.splitlines())


@pytest.mark.parametrize("display", [PlainLines, LivePanel])
def test_a_roll_back_is_told_and_the_curve_goes_back_with_it(play, tmp_path, display):
    class Poison(Callback):
        def on_start(self, trainer):
            trainer.model.head.weight.register_hook(
                lambda g: g * float("nan") if trainer.step == 4 and trainer.rate == 1 else g
            )

    screen = io.StringIO()
    watcher = display(screen)
    settings = [*SEEN, "training.checkpoint_every=2", "training.on_divergence=lower"]
    recipes.train(None, settings, data=str(play), out=tmp_path / "run", callbacks=[watcher, Poison()])
    assert [step for step, _ in watcher.losses] == [1, 2, 3, 4, 5, 6]
    assert [step for step, _ in watcher.validation] == [3, 6]
    assert "rolled back: training diverged at step 5: " in screen.getvalue()


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    assert isinstance(display_for(io.StringIO()), PlainLines)
