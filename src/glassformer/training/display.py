"""What a run shows while it trains: a live panel in a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import sys
import time
from typing import Any, TextIO

from glassformer.figures import Curves, Line
from glassformer.training.callbacks import Callback
from glassformer.training.formats import decimal
from glassformer.training.loop import Trainer
from glassformer.training.report_figures import metric_name

REFRESH_SECONDS = 0.25  # drawing costs a few milliseconds; the model should have the rest
SMOOTHING = 0.95
CURVE_POINTS = 200  # of the panel's curve: more than it has columns
STANDARD_NUMBERS = (  # of a record, shown in places of their own
    *("step", "tokens", "seconds", "loss", "lr", "grad_norm", "tokens_per_second", "mfu"),
    *("train_loss_eval", "train_interval", "val_loss", "val_interval", "val_bits_per_byte"),
)


def display_for(stream: TextIO | None = None) -> Callback:
    """A live panel when the stream (default: standard error) is a terminal, else plain lines."""
    stream = stream or sys.stderr
    return LivePanel(stream) if stream.isatty() else PlainLines(stream)


class _Display(Callback):
    """The numbers that both displays show."""

    def __init__(self, stream: TextIO):
        self.stream = stream
        self.losses: list[tuple[int, float]] = []  # (step, smoothed)
        self.validation: list[tuple[int, float]] = []  # those that are finite numbers
        self.evaluation: dict[str, Any] = {}  # the record of the last one
        self.record: dict[str, Any] = {}
        self.started = 0.0
        self._weighted = self._weight = 0.0

    def on_start(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.first_step, self.started = trainer.step, time.perf_counter()

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

    def event_line(self, record: dict[str, Any]) -> str | None:
        """An event as a line; None before the first step, where the command prints it itself."""
        return f"{record['kind']}: {record['text']}" if self.started else None

    @property
    def smoothed(self) -> float:
        """Exponential average of the training loss, corrected for its start."""
        return self._weighted / self._weight if self._weight else math.nan

    @property
    def seconds_left(self) -> float:
        done = self.record["step"] - self.first_step
        return (time.perf_counter() - self.started) / max(1, done) * (self.trainer.settings.steps - self.record["step"])

    @property
    def metrics(self) -> str:
        """What the task measures besides the loss, of the last step and the last evaluation."""
        known = {**self.evaluation, **self.record}
        values = {k: v for k, v in known.items() if k not in STANDARD_NUMBERS and not k.endswith("_interval")}
        return "".join(f"{metric_name(k).lower()} {decimal(v)}   " for k, v in values.items())


class PlainLines(_Display):
    """One line an evaluation, and about twenty a run."""

    def on_step(self, record: dict[str, Any]) -> None:
        super().on_step(record)
        r, steps = record, self.trainer.settings.steps
        if "val_loss" in r or r["step"] == self.first_step + 1 or r["step"] % max(1, steps // 20) == 0:
            evaluated = (
                f"  training {decimal(r.get('train_loss_eval'))}  validation {decimal(r['val_loss'])}"
                if "val_loss" in r
                else ""
            )
            self._print(
                f"step {r['step']:>{len(str(steps))}}/{steps}  loss {r['loss']:.4f}  smoothed {self.smoothed:.4f}"
                f"{evaluated}  {self.metrics}lr {r['lr']:.2e}  gradient {r['grad_norm']:.2f}  "
                f"{r['tokens_per_second']:,} tokens/s  {utilisation(r, '  ')}{clock(self.seconds_left)} left"
            )

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

        r, steps = self.record, self.trainer.settings.steps
        width = max(40, min(100, self.live.console.width))
        shown = {
            "step": f"{r['step']:,} / {steps:,}",
            "loss": f"{r['loss']:.4f}",
            "smoothed": f"{self.smoothed:.4f}",
            "training": decimal(self.evaluation.get("train_loss_eval")),
            "validation": decimal(self.evaluation.get("val_loss")),
            "best": decimal(min((v for _, v in self.validation), default=None)),
        }
        numbers = Table.grid(padding=(0, 2), expand=True)
        numbers.add_row(*(Text(label, style="dim") for label in shown))
        numbers.add_row(*(Text(value, style="bold") for value in shown.values()))
        more = Text(
            f"{self.metrics}learning rate {r['lr']:.2e}   gradient {r['grad_norm']:.2f}\n"
            f"{r['tokens_per_second']:,} tokens/s   {utilisation(r, '   ')}{clock(self.seconds_left)} left",
            style="dim",
        )
        bar = Padding(ProgressBar(total=steps, completed=r["step"], width=width - 4), 0)  # by itself it ends no line
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


def utilisation(record: dict[str, Any], after: str = "") -> str:
    """The share of the machine's speed that the model uses (`training.devices`); nothing if unknown."""
    return f"utilisation {100 * record['mfu']:.0f} %{after}" if "mfu" in record else ""


def clock(seconds: float) -> str:
    """`1:02:03`, `2:03`."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
