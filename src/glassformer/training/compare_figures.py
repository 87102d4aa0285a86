"""Runs beside each other: the validation score of each over the steps with its 95 % interval, whether the differences
are real, and which settings differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from glassformer.figures import Column, Curves, Figure, Line, Note, Table
from glassformer.training.formats import with_interval
from glassformer.training.report_figures import evaluated, of_steps
from glassformer.training.run_folder import RunFolder
from glassformer.training.run_history import RunHistory
from glassformer.training.run_table import RunComparison, compare_runs

NO_SETTINGS = "All settings are equal."
INTERVALS = (
    "± is the 95 % interval, for all differences together. It holds for these weights: another seed gives others."
)
OTHER_TEXT = "The runs were not measured on the same text: a difference may be due to the texts."


def comparison_figures(paths: Sequence[Path]) -> list[Figure]:
    """
    Raises:
        RunError: a path holds no run.
    """
    comparison = compare_runs(paths)
    histories = [RunHistory(RunFolder.open(path)) for path in paths]
    lines: list[Line] = []
    for i, h in enumerate(histories):
        lines += [
            Line(f"{h.name}, training", line.x, line.y, color=i, faint=True) for line in of_steps(h, "", "loss")[1:]
        ]
        measured = evaluated(h, h.name, h.score.name, i)
        lines += [measured] if len(measured.x) else []
    words = " and ".join(dict.fromkeys(row.score.words for row in comparison.rows))
    chart = Curves(words.capitalize(), lines, "step", words, y_from_zero=False)
    notes = [INTERVALS] if any(comparison.differences) else []
    notes += [] if comparison.same_text else [OTHER_TEXT]
    return [*([chart] if lines else []), _scores(comparison), _settings(comparison), *map(Note, notes)]


def _scores(c: RunComparison) -> Table:
    words = " or ".join(dict.fromkeys(row.score.words for row in c.rows))
    columns = [
        Column("run"), Column("parameters", "count"), Column("steps", "count"), Column(words, "number", 4),
        Column("±", "number", 4), Column("from the best"), Column(""),
    ]  # fmt: skip
    rows = []
    for i, (row, difference) in enumerate(zip(c.rows, c.differences, strict=True)):
        apart, verdict = "best" if i == c.best else "–", ""
        if difference is not None:
            apart = f"{with_interval(difference.difference, difference.interval)} {difference.unit}"
            verdict = f"{'significant' if difference.significant else 'not significant'} ({difference.method})"
        rows.append([row.name, row.parameters, row.steps, row.value, row.interval, apart, verdict])
    return Table("Which is better", columns, rows, frozenset() if c.best is None else frozenset({c.best}))


def _settings(c: RunComparison) -> Figure:
    if not c.settings:
        return Note(NO_SETTINGS, "Settings that differ")
    rows = [[key, *("–" if value is None else str(value) for value in values)] for key, values in c.settings.items()]
    return Table("Settings that differ", [Column("setting"), *(Column(row.name) for row in c.rows)], rows)
