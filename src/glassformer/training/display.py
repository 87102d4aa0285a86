"""Watching a run: a live panel on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, TextIO

from glassformer.training.loop import Callback, Trainer
from glassformer.training.report import figure

REFRESH_SECONDS = 0.25  # drawing costs a few milliseconds; the model should have the rest
SMOOTHING = 0.95


def display_for(stream: TextIO | None = None) -> Callback:
    """A live panel when the stream (default: standard error) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return LivePanel(stream) if stream.isatty() else PlainLines(stream)


class _Watcher(Callback):
    """What both displays need to know."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.losses: list[tuple[int, float]] = []  # (step, smoothed)
        self.validation: list[tuple[int, float]] = []  # those that are finite numbers
        self.evaluation: dict[str, Any] = {}  # the last record of one
        self.record: dict[str, Any] = {}
        self.started = 0.0
        self._weighted = self._weight = 0.0

    def on_start(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.first_step, self.started = trainer.step, time.perf_counter()
        self.n_answers = trainer.n_answers

    def on_step(self, record: dict[str, Any]) -> None:
        for curve in (self.losses, self.validation):
            while curve and curve[-1][0] >= record["step"]:  # rolled back
                curve.pop()
        self.record = record
        self._weighted = SMOOTHING * self._weighted + (1 - SMOOTHING) * record["loss"]
        self._weight = SMOOTHING * self._weight + (1 - SMOOTHING)
        self.losses.append((record["step"], self.smoothed))
        if "val_loss" in record:
            self.evaluation = record
            if record["val_loss"] is not None:
                self.validation.append((record["step"], record["val_loss"]))

    def told(self, record: dict[str, Any]) -> str | None:
        """An event as a line; None for what was said before the first step, which the command tells itself."""
        return f"{record['kind']}: {record['text']}" if self.started else None

    @property
    def smoothed(self) -> float:
        """Exponential average of the training loss, corrected for its start."""
        return self._weighted / self._weight if self._weight else math.nan

    @property
    def seconds_left(self) -> float:
        done = self.record["step"] - self.first_step
        return (time.perf_counter() - self.started) / max(1, done) * (self.trainer.settings.steps - self.record["step"])


class PlainLines(_Watcher):
    """One line an evaluation, and about twenty a run."""

    def on_step(self, record: dict[str, Any]) -> None:
        super().on_step(record)
        steps = self.trainer.settings.steps
        if "val_loss" in record or record["step"] == self.first_step + 1 or record["step"] % max(1, steps // 20) == 0:
            evaluated = (
                f"  training {figure(record['train_loss_eval'])}  validation {figure(record['val_loss'])}"
                if "val_loss" in record
                else ""
            )
            print(
                f"step {record['step']:>{len(str(steps))}}/{steps}  loss {record['loss']:.4f}  "
                f"smoothed {self.smoothed:.4f}{evaluated}  lr {record['lr']:.2e}  gradient {record['grad_norm']:.2f}  "
                f"{record['tokens_per_second']:,} tokens/s  {utilisation(record, '  ')}{clock(self.seconds_left)} left",
                file=self.stream,
                flush=True,
            )

    def on_event(self, record: dict[str, Any]) -> None:
        if line := self.told(record):
            print(line, file=self.stream, flush=True)

    def on_sample(self, step: int, text: str) -> None:
        print(f"--- the model writes, after step {step}:\n{text}\n---", file=self.stream, flush=True)


class LivePanel(_Watcher):
    """Numbers, curve and the latest sample, redrawn in place."""

    def __init__(self, stream: TextIO):
        super().__init__(stream)
        self.sample: tuple[int, str] | None = None
        self.event: str | None = None
        self.drawn = 0.0

    def on_start(self, trainer: Trainer) -> None:
        from rich.console import Console
        from rich.live import Live

        super().on_start(trainer)
        self.live = Live(console=Console(file=self.stream), auto_refresh=False, vertical_overflow="crop")
        self.live.start()

    def on_step(self, record: dict[str, Any]) -> None:
        super().on_step(record)
        if time.perf_counter() - self.drawn > REFRESH_SECONDS or "val_loss" in record:
            self._draw()

    def on_sample(self, step: int, text: str) -> None:
        self.sample = (step, text)
        self._draw()

    def on_event(self, record: dict[str, Any]) -> None:
        self.event = self.told(record)

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

        r, steps = self.record, self.trainer.settings.steps
        width = max(40, min(100, self.live.console.width))
        best = min((v for _, v in self.validation), default=None)
        shown = {
            "step": f"{r['step']:,} / {steps:,}",
            "loss": f"{r['loss']:.4f}",
            "smoothed": f"{self.smoothed:.4f}",
            "training": figure(self.evaluation.get("train_loss_eval")),
            "validation": figure(self.evaluation.get("val_loss")),
            "best": figure(best),
        }
        numbers = Table.grid(padding=(0, 2), expand=True)
        numbers.add_row(*(Text(label, style="dim") for label in shown))
        numbers.add_row(*(Text(value, style="bold") for value in shown.values()))
        more = Text(
            f"learning rate {r['lr']:.2e}   gradient {r['grad_norm']:.2f}\n"
            f"{r['tokens_per_second']:,} tokens/s   {utilisation(r, '   ')}{clock(self.seconds_left)} left",
            style="dim",
        )
        bar = Padding(ProgressBar(total=steps, completed=r["step"], width=width - 4), 0)  # by itself it ends no line
        parts: list[Any] = [bar, numbers, more, Text()]
        top = math.log(self.n_answers)
        parts += [Text(line, style="cyan") for line in chart([loss for _, loss in self.losses], width - 14, 6, top=top)]
        if self.event is not None:
            parts += [Text(), Text(self.event, style="yellow")]
        if self.sample is not None:
            step, text = self.sample
            lines = [line[: width - 6] for line in text.splitlines() if line.strip()][:8]
            parts += [
                Text(),
                Text(f"it writes, after step {step}:", style="dim"),
                *(Text("  " + line) for line in lines),
            ]
        return Panel(Group(*parts), title=f"training {self.trainer.run.path}", width=width, border_style="blue")


def chart(values: list[float], width: int, height: int, *, top: float) -> list[str]:
    """A curve of blocks: `height` lines, at most `width` columns, from `top` (a blind guess) down to the lowest value.

    >>> for line in chart([4.0, 3.0, 2.0], 3, 2, top=4.0): print(line)
     4.00 ┤█
     2.00 ┤██▁
    """
    if not values:
        return []
    columns = [values[int(i * len(values) / width)] for i in range(width)] if len(values) > width else values
    low, high = min(columns), max(top, 1e-9)
    span = max(high - low, 1e-9)
    eighths = [max(1, min(8 * height, round((v - low) / span * 8 * height))) for v in columns]
    lines = []
    for row in range(height - 1, -1, -1):
        cells = "".join(" ▁▂▃▄▅▆▇█"[max(0, min(8, e - 8 * row))] for e in eighths)
        label = f"{low + span * (row / max(1, height - 1)):5.2f} ┤"
        lines.append((label + cells).rstrip())
    return lines


def utilisation(record: dict[str, Any], after: str = "") -> str:
    """Which part of what the machine can multiply goes into the model (`training.utilisation`); nothing if unknown."""
    return f"utilisation {100 * record['mfu']:.0f} %{after}" if "mfu" in record else ""


def clock(seconds: float) -> str:
    """`1:02:03`, `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
