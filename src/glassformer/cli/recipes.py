"""`glassformer recipes`: what comes with the package."""

from __future__ import annotations

import typer

app = typer.Typer(help="List and show the recipes that come with the package.", no_args_is_help=True)


@app.command("list")
def list_recipes(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
    """The built-in recipes, a line each.

    Example: glassformer recipes list
    """
    import json

    from glassformer.recipes import builtin_recipes

    first = {
        name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in builtin_recipes().items()
    }
    if as_json:
        typer.echo(json.dumps([{"name": name, "what": what} for name, what in first.items()], indent=2))
        return
    for name, what in first.items():
        typer.echo(f"{name:<22} {what}")


@app.command("show")
def show(name: str = typer.Argument(help="A built-in recipe, or the path of one.")) -> None:
    """A recipe's text: its command, hardware, minutes, the number to expect, and every setting.

    Copy it, change it, and train with its path:
    glassformer recipes show shakespeare-fast > mine.toml; glassformer train mine.toml
    """
    from glassformer.recipes.schema import find_recipe

    typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)
