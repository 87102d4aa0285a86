"""`glassformer recipes`: the built-in recipes."""

from __future__ import annotations

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json

app = typer.Typer(
    help="List and show the built-in recipes.\n\nExample: glassformer recipes list",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.command("list")
def list_recipes(as_json: options.Json = False) -> None:
    """List the built-in recipes and what each one trains.

    Example: glassformer recipes list
    """
    import shutil
    import textwrap

    from glassformer.recipes import builtin_recipes

    first = {name: path.read_text("utf-8").splitlines()[0].lstrip("# ") for name, path in builtin_recipes().items()}
    if as_json:
        print_json([{"name": name, "what": what} for name, what in first.items()])
        return
    width = min(100, shutil.get_terminal_size().columns)
    for name, what in first.items():
        typer.echo(textwrap.fill(what, width, initial_indent=f"{name:<22}", subsequent_indent=" " * 22))


@app.command("show")
def show(name: str = typer.Argument(metavar="RECIPE", help="A built-in recipe, or the path of one.")) -> None:
    """Print a recipe with all its settings.

    To make your own, save it, change it, and train with its path:

    glassformer recipes show shakespeare-fast > mine.toml

    glassformer train mine.toml
    """
    from glassformer.recipes.reading import find_recipe

    typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
