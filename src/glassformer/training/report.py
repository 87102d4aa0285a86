"""`report.html`: a run on one page, made from the files of the run folder alone.

The page is one file that needs no network and nothing beside it: pictures are SVG drawn here, the style sheet and a few
lines of script (they read out the value under the pointer) stand in it. Every text goes through the template engine's
escaping: a sample may hold anything.
"""

from __future__ import annotations

import math
import time
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.files import write_text
from glassformer.training.charts import Chart, Series, line_chart, smooth
from glassformer.training.heat_maps import heat_map
from glassformer.training.loop import Callback, Trainer
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory, finite_number

MOST_SAMPLES = 16  # shown, the first and the last among them
MOST_LETTERS = 4000  # of a sample
MOST_ROWS = 48  # of a heat map
SHARE = 0.01  # of a run's time that `ReportWriter` takes at most


def write_report(run: RunFolder) -> Path:
    """Make `report.html` for a run, finished or not, and return its path.

    Raises:
        GlassformerError: the disk is full or the folder is not writable.
    """
    write_text(run.report, report_html(RunHistory(run)))
    return run.report


class ReportWriter(Callback):
    """Keeps `report.html` up to date while a run goes on: at evaluations, as long as that takes no more than a
    hundredth of the run's time. The last page is written by whoever writes `summary.json`."""

    def __init__(self) -> None:
        self.next_at = 0.0

    def on_start(self, trainer: Trainer) -> None:
        self.trainer, self.run, self.last = trainer, trainer.run, trainer.settings.steps

    def on_step(self, record: dict[str, Any]) -> None:
        started = time.perf_counter()
        if "val_loss" in record and started >= self.next_at and record["step"] < self.last:
            from jinja2 import TemplateError

            try:
                write_report(self.run)
            except TemplateError as error:  # ours, or of a package that was exchanged meanwhile; the run is worth more
                self.trainer.event("warning", f"report.html is not kept up to date: {error}")
                self.next_at = math.inf
                return
            now = time.perf_counter()
            self.next_at = now + (now - started) / SHARE


def report_html(h: RunHistory) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"count": count, "figure": figure, "duration": duration, "size": size}
    template = resources.files("glassformer.training").joinpath("report_template.html").read_text(encoding="utf-8")
    return environment.from_string(template.lstrip()).render(
        h=h,
        best=h.best,
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        charts=[chart for chart in _curves(h) if chart],
        maps=[chart for chart in _maps(h) if chart],
        samples=_spread(h.samples, MOST_SAMPLES),
        most_letters=MOST_LETTERS,
        plan=_plan_against_actual(h),
        tables=_configuration(h),
    )


def _curves(h: RunHistory) -> list[Chart | None]:
    """Loss (twice: linear and logarithmic steps), learning rate, gradient norm, speed, utilisation."""
    c = h.curves
    step = c["step"]
    span = max(10.0, len(step) / 50)
    evaluated, validation = ([r[key] for r in h.evaluations] for key in ("step", "val_loss"))
    measured = [r for r in h.evaluations if finite_number(r.get("train_loss_eval")) is not None]
    losses = [
        Series("training", step, c["loss"], "raw"),
        Series(f"training, smoothed over {span:,.0f} steps", *smooth(step, c["loss"], span), "smooth"),
        Series("validation", evaluated, validation, "validation"),
    ]
    if measured:
        steps, values = ([r[key] for r in measured] for key in ("step", "train_loss_eval"))
        losses.insert(-1, Series("training, in eval mode", steps, values, "measured"))
    levels = [("blind guess, ln V", h.blind_guess), ("bigram model", h.bigram_loss)]
    lines = [(f"{name} = {level:.4f}", level) for name, level in levels if level is not None]
    marks = [(e["step"], str(e.get("kind", "event"))) for e in h.events if finite_number(e.get("step")) is not None]
    top = max([1.2 * level for _, level in lines], default=math.inf)
    more: dict[str, Any] = {"lines": lines, "marks": marks, "ceiling": top, "height": 380}

    def one(id: str, title: str, key: str, factor: float = 1.0, *, noisy: bool = True, **how: Any) -> Chart | None:
        series = [Series(title, step, factor * c[key], "raw" if noisy else "smooth")]
        if noisy:
            series.append(Series("smoothed", *smooth(step, factor * c[key], span), "smooth"))
        return line_chart(id, title, series, marks=marks, height=200, **how)

    return [
        line_chart("loss", "Loss, nats a token", losses, **more),
        line_chart("loss-log", "Loss, nats a token", losses, x_log=True, **more),
        one("lr", "Learning rate", "lr", noisy=False, y_from_zero=True),
        one("gradient", "Gradient norm, before clipping", "grad_norm", y_log=True),
        one("speed", "Tokens a second", "tokens_per_second", y_from_zero=True),
        one("utilisation", "Utilisation, % of the machine's measured peak", "mfu", 100, y_from_zero=True),
    ]


def _maps(h: RunHistory) -> list[Chart | None]:
    """Update ratios and gradients by layer over time, and what flows through the taps where that was asked for."""
    steps = [record["step"] for record in h.diagnostics]

    def rows(part: str, key: str, depth: int) -> dict[str, np.ndarray]:
        """The first `depth` words of a name are a row's; what shares a row gives its highest value."""
        found: dict[str, np.ndarray] = {}
        for i, record in enumerate(h.diagnostics):
            names = record.get(part)
            for name, seen in names.items() if isinstance(names, dict) else ():
                value = finite_number(seen.get(key)) if isinstance(seen, dict) else None
                if value is not None:
                    words = name.removesuffix(".weight").split(".")[:depth]
                    row = found.setdefault(".".join(words), np.full(len(steps), math.nan))
                    row[i] = np.fmax(row[i], value)
        return found

    def fitting(part: str, key: str) -> dict[str, np.ndarray]:
        """A row for each name; where there are too many, one for each part of a layer, then one for each layer."""
        found: dict[str, np.ndarray] = {}
        for depth in (9, 3, 2):
            found = rows(part, key, depth)
            if len(found) <= MOST_ROWS:
                break
        return found

    return [
        heat_map("updates", "Update / weight, by layer", steps, fitting("parameters", "update")),
        heat_map("gradients", "Gradient, root mean square, by layer", steps, fitting("parameters", "gradient")),
        heat_map("activations", "Activations, root mean square", steps, fitting("activations", "rms")),
        heat_map("zeros", "Share of activations that are exactly 0", steps, fitting("activations", "zero"), log=False),
    ]


def _plan_against_actual(h: RunHistory) -> list[dict[str, Any]]:
    """Rows of what was predicted and what came; `ratio` is actual / predicted."""
    memory = h.plan.get("memory_bytes")
    memory = memory if isinstance(memory, dict) else {}
    done = h.summary
    speeds = h.curves["tokens_per_second"]
    tokens, speed = (
        finite_number(h.plan.get("tokens_per_step")),
        finite_number(float(np.nanmedian(speeds))) if len(speeds) else None,
    )
    per_step = tokens / speed if tokens and speed else None  # without evaluations and samples
    rows = [
        ("parameters", h.plan.get("parameters"), done.get("parameters"), count),
        ("peak memory", memory.get("peak"), done.get("peak_memory_bytes"), size),
        ("time", h.plan.get("seconds"), done.get("whole_seconds") or done.get("seconds"), duration),
        ("time a step", h.plan.get("seconds_per_step"), per_step, duration),
        ("validation loss", h.plan.get("val_loss"), done.get("val_loss"), figure),
    ]
    rows += [(f"memory: {name}", value, None, size) for name, value in memory.items() if name != "peak"]
    told = []
    for name, planned, actual, form in rows:
        planned, actual = finite_number(planned), finite_number(actual)
        if planned is None:
            continue
        ratio = f"{actual / planned:.2f}" if actual is not None and planned else ""
        shown = form(planned)
        if name == "validation loss" and isinstance(interval := h.plan.get("val_loss_interval"), list):
            low, high = (finite_number(end) for end in (*interval, None, None)[:2])
            shown += f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else ""
        told.append({"name": name, "planned": shown, "actual": "" if actual is None else form(actual), "ratio": ratio})
    return told


def _configuration(h: RunHistory) -> list[tuple[str, list[tuple[str, str]]]]:
    """recipe.toml as tables: asked, derived, machine, and the whole recipe section by section."""
    rest = [name for name in h.recipe if name not in ("asked", "derived", "machine")]
    tables = []
    for name in ("asked", "derived", "machine", *rest):
        value = h.recipe.get(name)
        if value is not None:
            rows = list(_flat(value)) if isinstance(value, dict) else [("", _shown(value))]
            tables.append((name, rows))
    return tables


def _flat(table: dict[str, Any], prefix: str = "") -> Any:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _shown(value)


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return "\n".join(map(str, value)) or "–"
    return str(value).lower() if isinstance(value, bool) else str(value) if value != "" else "–"


def _spread(items: list[Any], most: int) -> list[Any]:
    """At most so many, evenly over the whole, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def count(value: Any) -> str:
    """`1,003,854`; a dash for what is not known."""
    return f"{value:,.0f}" if finite_number(value) is not None else "–"


def figure(value: Any, digits: int = 4) -> str:
    """`1.6470`; a dash for what is not known."""
    return f"{value:.{digits}f}" if finite_number(value) is not None else "–"


def duration(seconds: Any) -> str:
    """`2 h 5 min`, `4 min 3 s`, `12.3 s`, `85.0 ms`."""
    if (s := finite_number(seconds)) is None:
        return "–"
    if s < 1:
        return f"{1000 * s:.1f} ms"
    if s < 60:
        return f"{s:.1f} s"
    minutes, rest = divmod(round(s), 60)
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def size(value: Any) -> str:
    """Bytes as `1.50 GiB`."""
    if (b := finite_number(value)) is None:
        return "–"
    for unit in ("B", "KiB", "MiB"):
        if b < 1024:
            return f"{b:.0f} B" if unit == "B" else f"{b:.1f} {unit}"
        b /= 1024
    return f"{b:.2f} GiB"
