"""`glassformer rank`: a person compares a model's answers in the terminal."""

from __future__ import annotations

import sys
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from glassformer.cli import options
from glassformer.cli.output import shortened

if TYPE_CHECKING:
    from collections.abc import Callable

    from glassformer.data.chats import Turns
    from glassformer.tasks.rankings import Rankings

NARROW = 60  # columns below which answers stand below each other


def rank(
    model: options.Model,
    prompts: str = typer.Argument(metavar="PROMPTS", help="A .jsonl file of prompts or chats, or a set by name."),
    out: str = typer.Option(..., metavar="FILE", help="The .jsonl file of pairs; an old one is continued."),
    answers: int = typer.Option(2, min=2, max=4, metavar="N", help="Answers to each prompt: 2 to 4."),
    temperature: float = typer.Option(0.8, min=0.01, metavar="T", help="Of the sampling."),
    max_new_tokens: int = typer.Option(
        128, "--max-new-tokens", "-n", min=1, metavar="N", help="The most tokens of one answer."
    ),
    seed: int = typer.Option(1337, metavar="NUMBER", help="Same seed, same answers."),
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
) -> None:
    """Compare a model's answers, and keep which is better.

    A key picks the best answer: 1 to 4; s skips, u takes the last choice back, q
    stops. Every choice is on disk at once; the same command continues. The pairs are
    what glassformer tune reward and tune dpo read.

    Example: glassformer rank smollm2-135m-instruct prompts.jsonl --out pairs.jsonl
    """
    from glassformer.cli.options import open_for
    from glassformer.data.chat_sets import chat_rows
    from glassformer.tasks.rankings import Rankings, different_answers

    rankings = Rankings(chat_rows(prompts), Path(out))
    loaded, tokenizer = open_for("generate", model, device, dtype)

    def answers_of(number: int) -> list[str]:
        numbers = {"answers": answers, "max_new_tokens": max_new_tokens, "seed": seed}
        return different_answers(loaded, tokenizer, rankings.rows[number], number, temperature=temperature, **numbers)

    _sit(rankings, answers_of)
    pairs = rankings.pairs
    typer.echo(f"\n{rankings.place:,} of {len(rankings.rows):,} prompts seen, {len(pairs):,} pairs in {out}")
    if len({str(pair["prompt"]) for pair in pairs}) >= 3:  # to train, to validate and to test on
        typer.echo(f"learn from them: glassformer tune dpo --data {out} --model {model}")


def _sit(rankings: Rankings, answers_of: Callable[[int], list[str]]) -> None:
    """Show and ask until all is done or the person stops; the next prompt is answered meanwhile."""
    made: dict[int, Future[list[str]]] = {}
    with ThreadPoolExecutor(1) as pool:
        while rankings.row is not None:
            for number in range(rankings.place, min(rankings.place + 2, len(rankings.rows))):
                if number not in made:
                    made[number] = pool.submit(answers_of, number)
            found = made[rankings.place].result()
            if len(found) < 2:
                typer.echo(f"\nskipped, all answers are equal: {shortened(_plain(rankings.row.prompt))}")
                rankings.pick(found, None)
                continue
            _show(rankings, found)
            key = _key(len(found))
            if key == "q":
                break
            if key == "u":
                if not rankings.undo():
                    typer.echo("there is nothing to take back")
            else:
                rankings.pick(found, None if key == "s" else int(key) - 1)
        for future in made.values():
            future.cancel()


def _show(rankings: Rankings, answers: list[str]) -> None:
    """The prompt, and the answers side by side."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    row = rankings.row
    assert row is not None
    console.rule(f"prompt {rankings.place + 1:,} of {len(rankings.rows):,}")
    console.print(Text(_plain(row.prompt)))
    panels = [Panel(Text(answer), title=str(i), title_align="left") for i, answer in enumerate(answers, 1)]
    if console.width < NARROW:
        console.print(*panels, sep="\n")
        return
    table = Table.grid(expand=True)
    for _ in panels:
        table.add_column(ratio=1)
    table.add_row(*panels)
    console.print(table)


def _key(n: int) -> str:
    """A key that has a meaning: 1 to n, s, u or q. At a terminal one press, else a line."""
    known = {*map(str, range(1, n + 1)), "s", "u", "q"}
    while True:
        typer.echo(f"the best: 1 to {n}; s skip, u take back, q stop > ", nl=False)
        if sys.stdin.isatty():
            try:
                key = typer.getchar()
            except (EOFError, KeyboardInterrupt):
                key = "q"
            typer.echo(key if key.isprintable() else "")
        else:
            line = sys.stdin.readline()
            key = line.strip() if line else "q"
            typer.echo(key)
        if key.lower() in known:
            return key.lower()


def _plain(prompt: Turns) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(f"{turn['role']}: {turn.get('content') or ''}" for turn in prompt)
