"""`glassformer lesson` and `glassformer lessons`: from a table of pairs to a GPT, one idea at a time."""

from __future__ import annotations

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json

_DATA = "A UTF-8 text file; without it Tiny Shakespeare (lesson 10: lines of French<TAB>English)."


def lesson(
    number: int = typer.Argument(metavar="NUMBER", help="1 to 10; glassformer lessons lists them."),
    steps: int = typer.Option(None, metavar="N", min=0, help="Training steps; default: the lesson's own."),
    seed: int = typer.Option(1337, metavar="NUMBER", min=0, help="Seed of weights, batches and sample."),
    data: str = typer.Option(None, metavar="FILE", help=_DATA),
    diff: bool = typer.Option(
        False, "--diff", help="Show the lines that differ from the lesson it builds on, and train nothing."
    ),
) -> None:
    """Run one lesson: its idea, its loss, a sample.

    A lesson is one small file that runs alone; the last line of the output is its path.

    Examples:

    glassformer lesson 3

    glassformer lesson 4 --diff

    glassformer lesson 8 --steps 5 --data my.txt
    """
    from glassformer.lessons import runner

    if diff:
        typer.echo(runner.changed_lines(number))
    else:
        runner.run_lesson(number, data=data, steps=steps, seed=seed)


def lessons(
    table: bool = typer.Option(False, "--table", help="Train all lessons; show our losses beside the lecture's."),
    seeds: int = typer.Option(1, metavar="N", min=1, max=10, help="With --table: train each lesson with N seeds."),
    steps: int = typer.Option(
        None, metavar="N", min=1, help="With --table: training steps; default: each lesson's own."
    ),
    scaled: bool = typer.Option(
        False, "--scaled", help="With --table: also lesson 8 at full size, 5,000 steps (needs a GPU)."
    ),
    scaled_steps: int = typer.Option(0, metavar="N", min=0, help="With --table: also lesson 8 at full size, N steps."),
    data: str = typer.Option(None, metavar="FILE", help=_DATA),
    as_json: options.Json = False,
    notebook: str = typer.Option(None, metavar="FILE", help="Write all lessons as a notebook (.ipynb)."),
) -> None:
    """List the lessons, train all, or make a notebook.

    Examples:

    glassformer lessons

    glassformer lessons --table --seeds 3

    glassformer lessons --notebook lessons.ipynb
    """
    from glassformer.errors import UsageError

    if notebook is not None:
        from glassformer.lessons.notebook import write_notebook

        write_notebook(notebook)
        typer.echo(f"written to {notebook}; open it with: jupyter lab {notebook}")
    elif table:
        _table(seeds, steps, 5000 if scaled and not scaled_steps else scaled_steps, data, as_json)
    elif seeds > 1 or steps is not None or scaled or scaled_steps:
        raise UsageError("--seeds, --steps, --scaled and --scaled-steps are for --table; add it")
    else:
        _list(as_json)


def _list(as_json: bool) -> None:
    from glassformer.lessons.runner import LESSONS, words_of

    if as_json:
        print_json([{"lesson": n, **vars(words_of(n)), "file": str(path)} for n, path in LESSONS.items()])
        return
    for number in LESSONS:
        typer.echo(f"{number:>2}  {words_of(number).title}")
    typer.echo("\nrun one: glassformer lesson 3    train all, beside the lecture's losses: glassformer lessons --table")


def _table(seeds: int, steps: int | None, scaled_steps: int, data: str | None, as_json: bool) -> None:
    import time

    from glassformer.lessons.runner import read_text
    from glassformer.lessons.table import HEAD, climb, line, replayed

    started, text, rows = time.perf_counter(), read_text(data), []
    if not as_json:
        typer.echo(HEAD)
    for row in climb(text, range(1337, 1337 + seeds), steps=steps, scaled_steps=scaled_steps, quiet=as_json):
        rows.append(row)
        if not as_json:
            typer.echo(line(row))
    seconds = time.perf_counter() - started
    if as_json:
        print_json({"rungs": [row.as_json() for row in rows], "replayed": replayed(text), "seconds": round(seconds, 1)})
        return
    lecture = " (the lecture: 4.87)" if data is None else ""
    typer.echo(f"random table, one batch of 4 x 8, seed 1337: {replayed(text):.3f}{lecture}")
    typer.echo(f"{seeds} seed{'s' * (seeds > 1)}, {seconds / 60:.1f} minutes; losses over the whole validation split")
