"""Level 8: the command line. Parse, call, print; no logic that a Python user would miss.

Only typer is imported here and in the command modules, everything else inside the commands: help must come at once.
"""

from __future__ import annotations

import sys
import warnings

import typer

from glassformer.cli import data, generate, recipes, train

app = typer.Typer(
    help="The Transformer you can train, use and see through.\n\n"
    "Start with: glassformer demo, or glassformer train --data my.txt",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode=None,
)
app.command("demo")(train.demo)
app.command("train")(train.train)
app.command("resume")(train.resume)
app.command("generate")(generate.generate)
app.command("evaluate")(train.evaluate)
app.add_typer(recipes.app, name="recipes")
app.add_typer(data.app, name="data")


@app.callback(invoke_without_command=True)
def _root(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        from glassformer import __version__

        typer.echo(__version__)
        raise typer.Exit()


def main() -> None:
    """The `glassformer` command. Exit code 0, 1 (it failed) or 2 (wrong use); no traceback for a user's mistake."""
    from glassformer.errors import GlassformerError

    warnings.showwarning = _one_line_warning  # type: ignore[assignment]
    try:
        app()
    except GlassformerError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output went away (head, less)
        sys.stderr.close()
        sys.exit(1)


def _one_line_warning(message: Warning | str, *where: object) -> None:
    typer.echo(f"warning: {message}", err=True)
