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
from glassformer.training import report_figures as figures
from glassformer.training.callbacks import Callback
from glassformer.training.formats import count, decimal, duration, metric_name, with_interval
from glassformer.training.loop import Trainer
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory

MOST_SAMPLES = 16  # shown, the first and the last among them
MOST_LETTERS = 4000  # of a sample
REPORT_TIME_SHARE = 0.01  # of a run's time that `ReportWriter` takes at most
ABOUT_UPDATES = (
    "Update / weight: root mean square of one step's change as a part of the weight's. Near 1e-3 is usual for "
    "AdamW (a rule of thumb), Muon's matrices change more; well above 1e-1 the learning rate is too high."
)


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

    def on_diagnostics(self, record: dict[str, Any]) -> None:
        started = time.perf_counter()
        if started < self.next_at or record["step"] == self.last:
            return
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
        draw=lambda drawn: html_fragment(drawn, with_style=False, readout=True),
        written=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        headline=headline(h),
        chart=figures.score_chart(h),
        chart_log=figures.score_chart(h, x_log=True),
        sections=[(title, note, drawn) for title, note, drawn in sections(h) if drawn],
        folded=[t for t in (figures.evaluation_table(h), *figures.configuration_tables(h)) if t.rows],
    )


def headline(h: RunHistory) -> list[tuple[str, str, str]]:
    """The key, the name and the text of the figures at the top; of the best weights."""
    best, score = h.best, h.score
    rows = [
        *((key, metric_name(key), decimal(best[key])) for key in h.metric_names),
        (score.train_name, f"Training {score.metric}", with_interval(best[score.train_name], best["train_interval"])),
        ("perplexity", "Perplexity", decimal(h.summary.get("perplexity"), 3)),
        ("best_step", "Best at step", count(best["step"])),
        ("parameters", "Parameters", count(h.parameters)),
        ("steps", "Steps", count(h.steps_done)),
        ("tokens", "Tokens", count(h.last("tokens"))),
        ("seconds", "Time in the loop", duration(h.last("seconds"))),
    ]
    first = (score.name, score.words.capitalize(), with_interval(best[score.name], best["interval"]))
    return [first, *(row for row in rows if row[2] != "–")]


def sections(h: RunHistory) -> list[tuple[str, str, list[Figure]]]:
    """The page below its head and its score: titles, notes and figures."""
    samples = spread(h.samples, MOST_SAMPLES)
    some = f"{len(samples)} of {len(h.samples):,}, evenly spread." if len(samples) < len(h.samples) else ""
    basis = h.plan.get("basis")
    reasons = [Note(f"{what}: {how}") for what, how in basis.items()] if isinstance(basis, dict) else []
    plan = figures.plan_table(h)
    return [
        ("Curves", "", [*figures.reward_chart(h), *figures.step_charts(h), *figures.metric_charts(h)]),
        ("By layer, over time", ABOUT_UPDATES, [*figures.residual_map(h), *figures.diagnostic_maps(h)]),
        ("Events", "", [figures.event_table(h)] if h.events else []),
        ("Plan against actual", "", [plan, *reasons] if plan.rows else []),
        ("Samples", some, [figure for sample in samples for figure in sample_figures(sample)]),
    ]


def sample_figures(sample: dict[str, Any]) -> list[Figure]:
    """What the task drew, or its text."""
    title = f"after step {count(sample['step'])}"
    with contextlib.suppress(UsageError):  # a damaged record
        if drawn := from_json(sample.get("figures") or []):
            return [Note("", title), *drawn]
    text = sample["text"]
    if len(text) > MOST_LETTERS:
        text = f"{text[:MOST_LETTERS]}… ({len(text) - MOST_LETTERS:,} more characters in samples.jsonl)"
    return [Note(text, title, verbatim=True)]


def spread(items: list[Any], most: int) -> list[Any]:
    """At most so many, evenly over the whole, the first and the last among them."""
    if len(items) <= most:
        return items
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]
