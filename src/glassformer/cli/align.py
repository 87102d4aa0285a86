"""`glassformer align-demo`: an experiment whose right answer is known."""

from __future__ import annotations

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json


def align_demo(
    out: str = typer.Option("align-demo", metavar="FOLDER", help="The folder for runs, results and the page."),
    seeds: int = typer.Option(None, metavar="N", min=1, max=20, help="Repeat with N seeds; default 3, with --short 1."),
    short: bool = typer.Option(False, "--short", help="A tiny model and DPO alone: some minutes."),
    loose: bool = typer.Option(False, "--loose", help="A weak penalty on the distance: PPO and GRPO over-optimise."),
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare methods of alignment by a hidden judge.

    A small model learns to write film reviews. A classifier that is hidden from it ranks what it writes. DPO learns
    from the rankings, and so does a reward model, against which PPO, GRPO, best-of-n and rejection sampling work. The
    page shows the classifier's judgement against the distance from the start. A stopped command goes on where it
    stopped.

    Examples:

    glassformer align-demo --short

    glassformer align-demo --seeds 3 --out align-demo
    """
    from pathlib import Path

    from glassformer.alignment import FULL, LOOSE, SHORT, align_demo, figures_of
    from glassformer.cli.train import watch
    from glassformer.errors import UsageError

    if short and loose:
        raise UsageError("--short has DPO alone, which --loose does not change; leave out one of them")
    settings = SHORT if short else LOOSE if loose else FULL
    result = align_demo(out, seeds=seeds or (1 if short else 3), settings=settings, **watch(quiet))
    if as_json:
        print_json(result)
        return
    from rich.console import Console

    from glassformer.figures import Note, Table, to_terminal

    console = Console(highlight=False)
    for figure in figures_of(result):
        if isinstance(figure, Note | Table):
            console.print("", *to_terminal([figure], console, console.options), sep="\n")
    typer.echo(f"the plot: {Path(out) / 'index.html'}")
