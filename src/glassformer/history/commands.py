"""`glassformer compare-history`: the Transformer beside the models that came before."""

from __future__ import annotations

from typing import Any

import typer

from glassformer.cli.output import print_json


def compare_history(
    source: str = typer.Option("tinyshakespeare", "--data", metavar="TEXT", help="The text to predict."),
    out: str = typer.Option("compare-history", metavar="FOLDER", help="The folder for results, pictures and the page."),
    quick: bool = typer.Option(False, "--quick", help="Train for one minute in all, to see that it works."),
    scale: float = typer.Option(1.0, metavar="X", help="Multiply all training steps by X."),
    device: str = typer.Option("auto", metavar="DEVICE", help="auto, cpu, cuda or cuda:N."),
    seed: int = typer.Option(0, metavar="N", min=0, help="Seed of weights, batches and strings."),
    as_json: bool = typer.Option(False, "--json", help="Print the results as JSON."),
) -> None:
    """Compare the Transformer with the models before it.

    First it trains n-grams, a bigram, an MLP, an RNN, a GRU, an LSTM and a Transformer on the same text, and draws loss
    against FLOPs and seconds. Then LSTMs without and with attention and a Transformer copy strings, which shows how
    much fits into one vector. Last, LSTMs without and with attention and a Transformer recall a fact 8 to 512 tokens
    back, each trained with three learning rates. Takes half an hour or more on two cores; --quick takes a minute.

    Example: glassformer compare-history --out history
    """
    from pathlib import Path

    from glassformer.history.comparison import compare_history as compare

    def log(line: str) -> None:
        typer.echo(line, err=True)

    result = compare(out, quick=quick, scale=scale, source=source, device=device, seed=seed, log=log)
    if as_json:
        print_json(result)
        return
    _print(result)
    typer.echo(f"pictures and tables: {Path(out) / 'index.html'}")


def _print(result: dict[str, Any]) -> None:
    """The table of each experiment."""
    from rich.console import Console

    from glassformer.figures import Table, to_terminal
    from glassformer.history.figures import history_figures

    console = Console(highlight=False)
    for figures in history_figures(result).values():
        for table in (figure for figure in figures if isinstance(figure, Table)):
            console.print("", *to_terminal([table], console, console.options), sep="\n")


COMMANDS = {"compare-history": compare_history}
"""Commands that this package adds, by name."""
