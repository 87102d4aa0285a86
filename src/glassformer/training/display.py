"""What a run shows while it trains: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, TextIO

from glassformer.figures import Curves, Line
from glassformer.training.callbacks import Callback
from glassformer.training.formats import clock, decimal, metric_name
from glassformer.training.loop import Trainer

REFRESH_SECONDS = 0.25  # drawing costs a few milliseconds; the model should have the rest
SMOOTHING = 0.95
CURVE_POINTS = 200  # of the panel's curve: more than it has columns
# numbers of a record that are shown in places of their own, or not at all
STANDARD_NUMBERS = ("step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second", "mfu")


def display_for(stream: TextIO | None = None) -> Callback:
    """A live panel when the stream (default: standard error) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return LivePanel(stream) if stream.isatty() else PlainLines(stream)


class _Display(Callback):
    """The numbers that both displays show."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.started = 0.0

    def on_start(self, trainer: Trainer) -> None:
        self.losses: list[tuple[int, float]] = []  # (step, smoothed)
        self.scores: list[tuple[int, float]] = []  # of evaluations, those that are finite numbers
        self.evaluation: dict[str, Any] = {}  # the record of the last one
        self.record: dict[str, Any] = {}
        self._weighted = self._weight = 0.0
        self.trainer, self.score = trainer, trainer.task.score
        self.first_step, self.started = trainer.step, time.perf_counter()

    def on_step(self, record: dict[str, Any]) -> None:
        for curve in (self.losses, self.scores):
            while curve and curve[-1][0] >= record["step"]:  # rolled back
                curve.pop()
        self.record = record
        self._weighted = SMOOTHING * self._weighted + (1 - SMOOTHING) * record["loss"]
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        self.losses.append((record["step"], self.smoothed))
        if self.score.name in record:
            self.evaluation = record
            if record[self.score.name] is not None:
                self.scores.append((record["step"], record[self.score.name]))

    def event_line(self, record: dict[str, Any]) -> str | None:
        """An event as a line; None before the first step, where the command prints it itself."""
        return f"{record['kind']}: {record['text']}" if self.started else None

    @property
    def smoothed(self) -> float:
        """Exponential average of the training loss, corrected for its start."""
        return self._weighted / self._weight if self._weight else math.nan

    @property
    def rates(self) -> list[str]:
        """What the task measures besides the score, speed, utilisation and the time left."""
        r, score = self.record, self.score
        shown = (*STANDARD_NUMBERS, score.train_name, score.name)
        more = {k: v for k, v in {**self.evaluation, **r}.items() if k not in shown and not k.endswith("_interval")}
        seconds_a_step = (time.perf_counter() - self.started) / max(1, r["step"] - self.first_step)
        twice = {key for key in more if key.startswith("val_") and key.removeprefix("val_") in more}
        return [
            *(f"{'validation ' * (k in twice)}{metric_name(k).lower()} {decimal(value)}" for k, value in more.items()),
            f"lr {r['lr']:.2e}",
            f"gradient {r['grad_norm']:.2f}",
            f"{r['tokens_per_second']:,} tokens/s",
            *([f"utilisation {100 * r['mfu']:.0f} %"] if "mfu" in r else []),
            f"{clock(seconds_a_step * (self.trainer.settings.steps - r['step']))} left",
        ]


class PlainLines(_Display):
    """One line an evaluation, and about twenty a run."""

    def on_step(self, record: dict[str, Any]) -> None:
        super().on_step(record)
        r, steps = record, self.trainer.settings.steps
        evaluated = self.score.name in r
        if evaluated or r["step"] == self.first_step + 1 or r["step"] % max(1, steps // 20) == 0:
            parts = [f"step {r['step']:>{len(str(steps))}}/{steps}", f"loss {r['loss']:.4f}"]
            parts.append(f"smoothed {self.smoothed:.4f}")
            if evaluated:
                parts.append(f"training {decimal(r.get(self.score.train_name))}")
                parts.append(f"validation {decimal(r[self.score.name])}")
            self._print("  ".join([*parts, *self.rates]))

    def on_event(self, record: dict[str, Any]) -> None:
        if line := self.event_line(record):
            self._print(line)

    def on_sample(self, step: int, text: str) -> None:
        self._print(f"--- sample after step {step}:\n{text}\n---")

    def _print(self, text: str) -> None:
        print(text, file=self.stream, flush=True)


class LivePanel(_Display):
    """Numbers, curve and the latest sample, redrawn in place."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self.event: str | None = None

    def on_start(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.live import Live

        super().on_start(trainer)
        self.sample: tuple[int, str] | None = None
        self.drawn = 0.0
        self.live = Live(console=Console(file=self.stream), auto_refresh=False, vertical_overflow="crop")
        self.live.start()

    def on_step(self, record: dict[str, Any]) -> None:
        super().on_step(record)
        if time.perf_counter() - self.drawn > REFRESH_SECONDS or self.evaluation is record:
            self._draw()

    def on_sample(self, step: int, text: str) -> None:
        self.sample = (step, text)
        self._draw()

    def on_event(self, record: dict[str, Any]) -> None:
        self.event = self.event_line(record)

    def on_end(self) -> None:
        if self.record:
            self._draw()
        self.live.stop()

    def _draw(self) -> None:
        self.live.update(self._panel(), refresh=True)
        self.drawn = time.perf_counter()

    def _panel(self) -> Any:
        from rich.console import Group
        from rich.padding import Padding
        from rich.panel import Panel
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        r, steps, score = self.record, self.trainer.settings.steps, self.score
        width = max(40, min(100, self.live.console.width))
        best = max((value for _, value in self.scores), key=lambda value: score.gain(value, 0.0), default=None)
        shown = {
            "step": f"{r['step']:,} / {steps:,}",
            "loss": f"{r['loss']:.4f}",
            "smoothed": f"{self.smoothed:.4f}",
            "training": decimal(self.evaluation.get(score.train_name)),
            "validation": decimal(self.evaluation.get(score.name)),
            "best": decimal(best),
        }
        numbers = Table.grid(padding=(0, 2), expand=True)
        numbers.add_row(*(Text(label, style="dim") for label in shown))
        numbers.add_row(*(Text(value, style="bold") for value in shown.values()))
        bar = Padding(ProgressBar(total=steps, completed=r["step"], width=width - 4), 0)  # by itself it ends no line
        more = Text("   ".join(self.rates), style="dim")
        parts: list[Any] = [bar, numbers, more, Text(), *self._curve(width - 4)]
        if self.event is not None:
            parts += [Text(), Text(self.event, style="yellow")]
        if self.sample is not None:
            step, text = self.sample
            lines = [line[: width - 6] for line in text.splitlines() if line.strip()][:8]
            parts += [Text(), Text(f"sample after step {step}:", style="dim"), *(Text(f"  {line}") for line in lines)]
        return Panel(Group(*parts), title=f"training {self.trainer.run.path}", width=width, border_style="blue")

    def _curve(self, width: int) -> list[Any]:
        """The smoothed loss, up to that of a model that gives every token equal probability."""
        from glassformer.figures import to_terminal

        some = self.losses[:: max(1, len(self.losses) // CURVE_POINTS)]
        steps, losses = zip(*some, self.losses[-1], strict=True)
        chart = Curves("", [Line("loss", steps, losses)], y_from_zero=False, y_max=math.log(self.trainer.n_answers))
        console = self.live.console
        return list(to_terminal([chart], console, console.options.update(width=width)))
