"""Chats in the terminal: which tokens of a row are trained (`data show`), what is wrong with a file (`data check`)."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli.output import print_json

if TYPE_CHECKING:
    from rich.console import Console

    from glassformer.data.chats import ChatRow
    from glassformer.processors.tokenizers import Tokenizer
    from glassformer.tasks.chats import TokenSequence

ROWS = 3  # that are shown
TRAINED, MASKED, SPECIAL = ("black on #7fc97f", "black on #a8dfa8"), ("dim", "dim"), "bold magenta"
LEGENDS = (
    "trained tokens stand between [[ and ]]; the others are read only; a middle dot parts tokens",
    "trained tokens are green (two shades part them); the others are read only; special tokens are magenta",
)


def show_chats(source: str, template: str | None, model: str | None, rows: int | None, as_json: bool) -> None:
    """The first rows, token by token."""
    from itertools import islice

    from glassformer.data.chat_sets import chat_rows
    from glassformer.tasks.chat_check import row_sequences

    found = chat_rows(source, quiet=as_json)
    tokenizer, lines = _tokenizer(found, template, model)
    shown = [(row, row_sequences(tokenizer, row)) for row in islice(found, ROWS if rows is None else rows)]
    if as_json:
        print_json({"name": source, "rows": len(found), "first": [_as_dict(tokenizer, *pair) for pair in shown]})
        return
    _heading(source, found)
    for line in lines:
        typer.echo(line)
    typer.echo(LEGENDS[_console().color_system is not None])
    for row, sequences in shown:
        names = [""] if len(sequences) == 1 else [f", {i} of {len(sequences)}" for i in range(1, len(sequences) + 1)]
        if len(row.answers) == 2 and len(sequences) == 2:
            names = [", chosen", ", rejected"]
        for name, sequence in zip(names, sequences, strict=True):
            n = len(sequence.ids)
            typer.echo(f"\n{row.place}{name}: {n:,} tokens, {int(sequence.trained.sum()):,} trained")
            _print_tokens(tokenizer, sequence)
        if not row.answers:
            typer.echo("(the model answers here)")
        if row.columns or row.label is not None:
            typer.echo(f"columns: {row.columns if row.label is None else {'label': row.label, **row.columns}}")


def check_chats(source: str, template: str | None, model: str | None, length: int | None, as_json: bool) -> None:
    """Everything that is wrong with a file of chats; exit code 1 if training would refuse it."""
    from glassformer.data.chat_sets import chat_rows
    from glassformer.errors import DataError, plural
    from glassformer.tasks import chat_check

    refused: list[str] = []
    rows = chat_rows(source, quiet=as_json, on_error=refused.append)
    if not rows:
        raise DataError(refused[0] if refused else f"{source}: there are no rows")
    tokenizer, lines = _tokenizer(rows, template, model)
    found = chat_check.check_chats(rows, tokenizer, refused, length)
    errors = sum(finding.error for finding in found)
    if as_json:
        listed = [{"error": f.error, "rule": f.rule, "places": f.places} for f in found]
        print_json({"name": source, "rows": len(rows) + len(refused), "findings": listed})
    else:
        _heading(source, rows)
        for line in (*lines, *map(str, found)):
            typer.echo(line)
        counts = f"{plural(errors, 'error')}, {plural(len(found) - errors, 'warning')}"
        typer.echo(counts if found else "nothing is wrong")
    if errors:
        raise typer.Exit(1)


def _heading(source: str, rows: list[ChatRow]) -> None:
    from collections import Counter

    from glassformer.errors import plural

    names = ("a prompt alone", "an answer", "chosen and rejected")
    counts = Counter(f"{names[len(row.answers)]} ({'messages' if row.is_chat else 'texts'})" for row in rows)
    parts = [f"{plural(n, 'row')} with {what}" for what, n in counts.items()]
    typer.echo(f"{source}: {', '.join(parts)}")


def _tokenizer(rows: list[ChatRow], template: str | None, model: str | None) -> tuple[Tokenizer, list[str]]:
    """What training would use, and lines about it."""
    from glassformer.hub import model_folder_of
    from glassformer.tasks.chats import tokenizer_of

    choices: list[Any] = []
    folder = None if model is None else Path(model_folder_of(model))
    tokenizer = tokenizer_of(rows, template, choices, folder=folder)
    of = f"that of {model}" if model else "a new one, learned from these rows; --model takes that of a model"
    return tokenizer, [f"tokenizer: {of} ({tokenizer.vocab_size:,} tokens)", *map(str, choices)]


def _as_dict(tokenizer: Tokenizer, row: ChatRow, sequences: list[TokenSequence]) -> dict[str, Any]:
    def tokens(sequence: TokenSequence) -> list[dict[str, Any]]:
        pairs = zip(sequence.ids.tolist(), sequence.trained.tolist(), strict=True)
        return [{"id": i, "text": tokenizer.token_text(i), "trained": trained} for i, trained in pairs]

    return {"place": row.place, "sequences": [tokens(sequence) for sequence in sequences], "columns": row.columns}


def _console() -> Console:
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def _print_tokens(tokenizer: Tokenizer, sequence: TokenSequence) -> None:
    """One sequence: colours on a terminal, marks elsewhere."""
    from rich.text import Text

    console = _console()
    coloured = console.color_system is not None
    special, line, before, parted = set(tokenizer.special_tokens.values()), Text(), False, True
    for number, (i, trained) in enumerate(zip(sequence.ids.tolist(), sequence.trained.tolist(), strict=True)):
        text = tokenizer.token_text(i)
        if not coloured and trained != before:
            line.append("[[" if trained else "]]")
        elif not parted and not (coloured and trained):
            line.append("·", "dim")
        style = (TRAINED if trained else MASKED)[number % 2]
        line.append(text, f"{SPECIAL} on #7fc97f" if i in special and trained else SPECIAL if i in special else style)
        if parted := "\\n" in text:
            line.append("\n")
        before = trained
    console.print(line + Text("]]" if before and not coloured else ""))
