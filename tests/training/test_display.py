"""The panel and the plain lines: of one real small run that is rolled back, and of records made by hand."""

from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from glassformer import recipes
from glassformer.tasks import Score
from glassformer.training import Callback
from glassformer.training.display import LivePanel, PlainLines, display_for
from glassformer.training.formats import clock

TINY = ["model.n_layer=1", "model.n_head=1", "model.n_embd=8", "model.block_size=5", "training.steps=6"]
SETTINGS = [
    *(*TINY, "training.batch_size=2", "training.eval_every=3", "training.sample_every=3", "training.sample_tokens=30"),
    *("training.checkpoint_every=2", "training.on_divergence=lower"),
]
RECORD = {"step": 1, "loss": 4.0, "lr": 1e-3, "grad_norm": 1.0, "tokens_per_second": 1000}


def drawn(panel: LivePanel) -> str:
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(panel._panel())
    return console.export_text()


@pytest.fixture(scope="module")
def displays(tmp_path_factory) -> list[PlainLines | LivePanel]:
    """Both, after a run whose fifth step diverged once."""

    class Poison(Callback):
        def on_start(self, trainer):
            trainer.model.head.weight.register_hook(
                lambda g: g * float("nan") if trainer.step == 4 and trainer.rate == 1 else g
            )

    folder = tmp_path_factory.mktemp("display")
    (folder / "play.txt").write_text("First Citizen: speak, speak.\n" * 400)
    displays = [PlainLines(io.StringIO()), LivePanel(io.StringIO())]
    recipes.train(None, SETTINGS, data=str(folder / "play.txt"), out=folder / "run", callbacks=[*displays, Poison()])
    return displays


def test_plain_lines_hold_loss_validation_speed_and_time_left(displays):
    lines = displays[0].stream.getvalue().splitlines()
    third = next(line for line in lines if line.startswith("step 3/6"))
    for word in ("loss", "smoothed", "validation", "lr", "gradient", "tokens/s", "left"):
        assert word in third
    assert "validation" not in lines[0] and "--- sample after step 3:" in lines


def test_the_live_panel_shows_every_number_of_the_last_record(displays):
    panel = displays[1]
    text, record = drawn(panel), panel.record
    for label in ("step", "loss", "smoothed", "validation", "best", "lr", "gradient", "tokens/s", "left"):
        assert label in text
    for shown in ("6 / 6", f"{record['loss']:.4f}", f"{record['val_loss']:.4f}", f"{record['lr']:.2e}", "after step 6"):
        assert shown in text
    assert all(len(line) <= 80 for line in text.splitlines()) and "┤" in text


def test_a_roll_back_is_shown_and_the_curve_goes_back_with_it(displays):
    for display in displays:
        assert [step for step, _ in display.losses] == [1, 2, 3, 4, 5, 6]
        assert [step for step, _ in display.scores] == [3, 6]
        assert "rolled back: training diverged at step 5: " in display.stream.getvalue()


@pytest.mark.parametrize(
    ("more", "shown"),
    [({"mfu": 0.3456}, "utilisation 35 %"), ({}, None), ({"clip_share": 0.25}, "clip share 0.2500")],
)
def test_utilisation_and_the_metrics_of_a_task_are_shown_where_there_are_some(more, shown):
    trainer = SimpleNamespace(
        step=0,
        n_answers=65,
        task=SimpleNamespace(score=Score()),
        settings=SimpleNamespace(steps=2),
        run=SimpleNamespace(path="runs/x"),
    )
    plain, panel = PlainLines(io.StringIO()), LivePanel(io.StringIO())
    for display in (plain, panel):
        display.on_start(trainer)
        display.on_step(RECORD | more)
    texts = (plain.stream.getvalue(), drawn(panel))
    panel.on_end()
    for text in texts:
        assert "1,000 tokens/s" in text and (shown in text if shown else "utilisation" not in text)


def test_what_steps_and_evaluations_both_measure_is_told_apart():
    settings = SimpleNamespace(steps=2)
    trainer = SimpleNamespace(step=0, settings=settings, task=SimpleNamespace(score=Score("val_reward", "higher")))
    display = PlainLines(io.StringIO())
    display.on_start(trainer)
    display.on_step(RECORD | {"length": 7.0, "val_length": 8.0, "val_reward": 0.5, "train_reward_eval": 0.6})
    line = display.stream.getvalue()
    assert "  length 7" in line and "  validation length 8" in line


def test_a_display_that_shows_several_runs_forgets_the_one_before():
    settings = SimpleNamespace(steps=1)
    trainer = SimpleNamespace(step=0, settings=settings, task=SimpleNamespace(score=Score()))
    display = PlainLines(io.StringIO())
    for more in ({"val_loss": 9.0, "margin": 2.0}, {}):
        display.on_start(trainer)
        display.on_step(RECORD | more)
    first, second = display.stream.getvalue().splitlines()
    assert "margin 2" in first and "margin" not in second and "smoothed 4.0000" in second


def test_clock():
    assert (clock(0), clock(61.2), clock(3723)) == ("0:00", "1:01", "1:02:03")


def test_a_stream_that_is_no_terminal_gets_plain_lines():
    assert isinstance(display_for(io.StringIO()), PlainLines)
