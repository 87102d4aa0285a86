"""What all `look` commands have in common: which model, which text, and how the answer is given."""

from __future__ import annotations

import sys
from typing import Any

import typer

from glassformer.cli.telling import print_json

MODEL = typer.Argument(metavar="MODEL", help="A run, a model folder or a pulled model.")
TEXT = typer.Argument(metavar="TEXT", help="A text, in quotes; - reads standard input.")
JSON = typer.Option(False, "--json", help="Print all numbers as JSON.")
HTML = typer.Option(None, "--html", metavar="FILE", help="Write a page that needs nothing else.")
POSITION = typer.Option(-1, metavar="N", help="At which token; -1 is the last.")
TARGET = typer.Option(None, metavar="TEXT", help="Of a translator: what it writes; left out, its own answer.")
LAYER = typer.Option(None, metavar="N", help="Of one layer, from 0.")
HEAD = typer.Option(None, metavar="N", help="Of one head, from 0.")


def opened(path: str) -> tuple[Any, Any, Any]:
    """A model of any kind in fp32, the tokenizer of what it says, and that of what it reads where that is another."""
    from glassformer.hub import load, load_source_tokenizer
    from glassformer.threads import set_threads

    set_threads()
    model, tokenizer = load(path)
    source = load_source_tokenizer(path) if "target" in model.answers else None
    return model, tokenizer, source


def given(text: str) -> str:
    """A text as it was typed, or all of standard input.

    Raises:
        UsageError: standard input is the keyboard, or no text.
    """
    from glassformer.errors import UsageError
    from glassformer.text_files import decode

    if text != "-":
        return text
    if sys.stdin.isatty():
        raise UsageError("- reads standard input, which is the keyboard here; pipe a text into it")
    try:
        return decode(sys.stdin.buffer.read())
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text; pipe plain text into it") from None


def show(view: Any, as_json: bool, html: str | None) -> None:
    """Draw it, print it as JSON, or write it as a page."""
    if html is not None:
        from pathlib import Path

        from glassformer.files import write_text

        write_text(Path(html), view.to_html())
        typer.echo(f"{html}: open it in a browser", err=True)
    if as_json:
        print_json(view.to_dict(), indent=None)
    elif html is None:
        from rich.console import Console

        Console(highlight=False).print(view)
