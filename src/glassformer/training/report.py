"""`report.html`: a run on one page, made of figures and from the files of the run folder alone.

The page is one file that needs no network and nothing beside it. Every text passes through the template engine's
escaping: a sample may hold anything.
"""

from __future__ import annotations

import contextlib
import math
import time
from importlib import resources
from pathlib import Path
from typing import Any

from glassformer.errors import UsageError
from glassformer.figures import Figure, Note, from_json
from glassformer.files import write_text
from glassformer.training.callbacks import Callback
from glassformer.training.formats import count, decimal, duration
from glassformer.training.loop import Trainer
from glassformer.training.report_figures import (
    configuration_tables,
    diagnostic_maps,
    evaluation_table,
    event_table,
    loss_chart,
    metric_charts,
    metric_name,
    plan_table,
    references,
    step_charts,
)
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory

MOST_SAMPLES = 16  # shown, the first and the last among them
MOST_LETTERS = 4000  # of a sample
REPORT_TIME_SHARE = 0.01  # of a run's time that `ReportWriter` takes at most


def write_report(run: RunFolder) -> Path:
    """Make `report.html` for a run, finished or not, and return its path.

    Raises:
        GlassformerError: the disk is full or the folder is not writable.
    """
    write_text(run.report, report_html(RunHistory(run)))
    return run.report


class ReportWriter(Callback):
    """Keeps `report.html` up to date during a run: at evaluations, as long as that takes no more than a hundredth of
    the run's time. The last page is written with `summary.json`."""

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
            except TemplateError as error:  # the run is worth more than its page
                self.trainer.event("warning", f"report.html is not kept up to date: {error}")
                self.next_at = math.inf
                return
            now = time.perf_counter()
            self.next_at = now + (now - started) / REPORT_TIME_SHARE


def report_html(h: RunHistory) -> str:
    """The page as text."""
    from jinja2 import Environment, StrictUndefined

    from glassformer.figures.html import html_fragment, script, style

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files("glassformer.training").joinpath("report_template.html").read_text(encoding="utf-8")
    return environment.from_string(template.lstrip()).render(
        h=h,
        count=count,
        style=style(),
        script=script(),
        draw=lambda figures: html_fragment(figures, with_style=False, readout=True),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        headline=headline(h),
        loss=loss_chart(h),
        loss_log=loss_chart(h, x_log=True),
        sections=[(title, note, figures) for title, note, figures in sections(h) if figures],
        folded=[table for table in (evaluation_table(h), *configuration_tables(h)) if table.rows],
        reference=references(h),
    )


def headline(h: RunHistory) -> list[tuple[str, str, str]]:
    """The key, the name and the text of the figures at the top; of the best weights."""
    best = h.best

    def with_interval(key: str, interval: str) -> str:
        return decimal(best[key]) + (f" ± {decimal(best[interval])}" if best[interval] else "")

    rows = [("val_loss", "Validation loss", with_interval("val_loss", "interval"))]
    for key, value in h.best_metrics.items():
        rows.append((key, metric_name(key), f"{100 * value:.2f} %" if key == "val_accuracy" else decimal(value)))
    rows += [
        ("train_loss_eval", "Training loss", with_interval("train_loss_eval", "train_interval")),
        ("perplexity", "Perplexity", decimal(h.summary.get("perplexity"), 3)),
        ("best_step", "Best at step", count(best["step"])),
        ("parameters", "Parameters", count(h.parameters)),
        ("steps", "Steps", count(h.steps_done)),
        ("tokens", "Tokens", count(h.last("tokens"))),
        ("seconds", "Time in the loop", duration(h.last("seconds"))),
    ]
    return [row for row in rows if row[2] != "–" or row[0] == "val_loss"]


def sections(h: RunHistory) -> list[tuple[str, str, list[Figure]]]:
    """The page below its head and its loss: titles, notes and figures."""
    samples = spread(h.samples, MOST_SAMPLES)
    some = f"{len(samples)} of {len(h.samples):,}, evenly spread." if len(samples) < len(h.samples) else ""
    about_updates = (
        "Update / weight: root mean square of one step's change as a part of the weight's. Near 1e-3 is usual for "
        "AdamW (a rule of thumb), Muon's matrices change more; well above 1e-1 the learning rate is too high."
    )
    basis = h.plan.get("basis")
    reasons = [Note(f"{what}: {how}") for what, how in basis.items()] if isinstance(basis, dict) else []
    plan = plan_table(h)
    return [
        ("Curves", "", [*step_charts(h), *metric_charts(h)]),
        ("By layer, over time", about_updates, diagnostic_maps(h)),
        ("Events", "", [event_table(h)] if h.events else []),
        ("Plan against actual", "", [plan, *reasons] if plan.rows else []),
        ("Samples", some, [figure for sample in samples for figure in sample_figures(sample)]),
    ]


def sample_figures(sample: dict[str, Any]) -> list[Figure]:
    """What the task drew, or its text."""
    title = f"after step {count(sample['step'])}"
    with contextlib.suppress(UsageError):  # a damaged record
        if figures := from_json(sample.get("figures") or []):
            return [Note("", title), *figures]
    return [Note(_cut(sample["text"]), title, verbatim=True)]


def spread(items: list[Any], most: int) -> list[Any]:
    """At most so many, evenly over the whole, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _cut(text: str) -> str:
    left_out = len(text) - MOST_LETTERS
    return text if left_out <= 0 else f"{text[:MOST_LETTERS]}… ({left_out:,} more characters in samples.jsonl)"
