"""`glassformer look`: what goes on inside a model, in numbers."""

from __future__ import annotations

import typer

from glassformer.cli.look import chances

app = typer.Typer(
    help="Look inside a model, in true numbers.\n\n"
    "Drawn in the terminal; --json prints all of them, and --html writes a page that needs nothing else.\n\n"
    'Example: glassformer look next runs/demo-1 "To be, or not to "',
    no_args_is_help=True,
    rich_markup_mode=None,
)
app.command("next")(chances.next_)
app.command("surprise")(chances.surprise)
app.command("compare")(chances.compare)
