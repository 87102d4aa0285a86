"""`glassformer runs` and `glassformer report`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json

if TYPE_CHECKING:
    from glassformer.training.run_table import Row, RunComparison


def runs(
    paths: list[str] = typer.Argument(
        None,
        metavar="[FOLDER] | RUN RUN ...",
        help="A folder of runs (default: runs), or several runs to compare.",
    ),
    sort: str = typer.Option("name", "--sort", metavar="ORDER", help="name, loss or time."),
    as_json: options.Json = False,
) -> None:
    """List the runs in a folder, or compare runs.

    The list shows each run's size, steps, state, and the training and validation loss of its best weights with a 95 %
    interval. The comparison shows which settings differ, and whether the losses differ significantly.

    Examples:

    glassformer runs

    glassformer runs my-runs --sort loss

    glassformer runs runs/wide runs/deep
    """
    from glassformer.training.run_table import compare_runs, list_runs

    paths = paths or ["runs"]
    if len(paths) == 1:
        rows = list_runs(paths[0], sort=sort)
        if as_json:
            print_json([row.to_dict() for row in rows])
        else:
            _print_list(rows)
        return
    comparison = compare_runs(paths)
    if as_json:
        print_json(comparison.to_dict())
    else:
        _print_comparison(comparison)


def report(run: options.RunFolder) -> None:
    """Write report.html into the folder of a run or of stages.

    A self-contained page with curves, samples, settings, and the predicted beside the actual costs. A run may still be
    training. The page of stages has what each of them changed, and links to their own reports.

    Example: glassformer report runs/shakespeare-fast-1
    """
    from pathlib import Path

    from glassformer.recipes.stage_results import write_stages_report
    from glassformer.recipes.stages import is_stage_folder
    from glassformer.training import RunFolder, write_report

    typer.echo(str(write_stages_report(Path(run)) if is_stage_folder(run) else write_report(RunFolder.open(run))))


def _print_list(rows: list[Row]) -> None:
    from glassformer.training.formats import count, decimal, duration, with_interval

    states = {"stopped": "stopped at step", "diverged": "diverged after step", "running": "running, step"}
    header = ["run", "recipe", "parameters", "steps", "tokens", "time", *_names_of_scores(rows)]
    _table(
        [*header, "bits a byte", "state"],
        [
            [
                row.name,
                row.recipe,
                count(row.parameters),
                f"{row.steps:,}" + (f" of {row.steps_asked:,}" if row.steps_asked else ""),
                count(row.tokens),
                duration(row.seconds),
                decimal(row.train),
                with_interval(row.value, row.interval),
                decimal(row.val_bits_per_byte),
                f"{states[row.state]} {row.steps:,}" if row.state in states else row.state,
            ]
            for row in rows
        ],
        numbers=range(2, 9),
    )
    for row in rows:
        if row.resume:
            typer.echo(f"to continue {row.name}: {row.resume}")


def _print_comparison(c: RunComparison) -> None:
    from glassformer.training.formats import decimal, with_interval

    lines = []
    for i, (row, difference) in enumerate(zip(c.rows, c.differences, strict=True)):
        above, verdict = "–", "no loss yet" if row.value is None else ""
        if i == c.best:
            above, verdict = "best", ""
        elif difference is not None:
            above = f"{with_interval(difference.difference, difference.interval)} {difference.unit}"
            how = f"{difference.method}, {difference.n:,} passages" if difference.n else difference.method
            verdict = f"{'significant' if difference.significant else 'not significant'} ({how})"
        value = with_interval(row.value, row.interval)
        lines.append([row.name, decimal(row.train), value, decimal(row.val_bits_per_byte), above, verdict])
    header = ["run", *_names_of_scores(c.rows), "bits a byte", "above the best", ""]
    _table(header, lines, numbers=range(1, 5))
    typer.echo("")
    if c.settings:
        rows = [[key, *("–" if v is None else str(v) for v in values)] for key, values in c.settings.items()]
        _table(["setting", *(row.name for row in c.rows)], rows)
        typer.echo("")
    else:
        typer.echo("All settings are equal.\n")
    known = sum(difference is not None for difference in c.differences)
    if known:
        together = " for all differences together" if known > 1 else ""
        typer.echo(f"± is the 95 % interval{together}. It holds for these weights: another seed gives others.")
    if any(d is not None and d.method == "unpaired" for d in c.differences):
        typer.echo("Unpaired comparisons find fewer differences; runs with losses of the same windows are paired.")
    if not c.same_text:
        typer.echo("The runs were not measured on the same text: a difference may be due to the texts.")


def _names_of_scores(rows: Sequence[Row]) -> list[str]:
    """The heads of the columns: of the loss, or of whichever metric chooses the best weights."""
    metrics = dict.fromkeys(row.score.metric.replace("_", " ") for row in rows)
    return [f"{split} {' or '.join(metrics)}" for split in ("training", "validation")]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> None:
    """Print a table on a terminal; elsewhere plain aligned columns, never cut, for other programs."""
    import sys

    if sys.stdout.isatty():
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        table = Table()
        for i, name in enumerate(header):
            table.add_column(Text(name), justify="right" if i in numbers else "left")
        for row in rows:
            table.add_row(*map(Text, row))
        Console().print(table)
        return
    widths = [max(len(line[i]) for line in [header, *rows]) for i in range(len(header))]
    for line in [header, *rows]:
        cells = (c.rjust(w) if i in numbers else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        typer.echo("  ".join(cells).rstrip())
