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
    much fits into one vector. Takes minutes on two cores.

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
    from rich.console import Console

    console = Console(highlight=False)
    rows = []
    for curve in result["loss"]["curves"]:
        counted = curve["kind"] == "n-gram"
        for point in curve["points"] if counted else curve["points"][-1:]:
            name, kept = (
                (f"{point['n']}-grams", point["parameters"]) if counted else (curve["name"], curve["parameters"])
            )
            loss = f"{point['loss']:.3f}" + (f" ± {point['interval']:.3f}" if point["interval"] is not None else "")
            rows.append([name, f"{kept:,}", f"{point['flops']:.1e}", f"{point['seconds']:.1f}", loss])
    console.print(
        _table("validation loss and its cost", ["model", "parameters", "FLOPs", "seconds", "validation loss"], rows)
    )
    curves = result["bottleneck"]["curves"]
    lengths = [str(point["length"]) for point in curves[0]["points"]]
    rows = [[curve["name"], *(f"{100 * point['exact']:.0f}" for point in curve["points"])] for curve in curves]
    console.print(_table("strings copied without a mistake, in %, by length", ["model", *lengths], rows))


def _table(title: str, columns: list[str], rows: list[list[str]]) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


COMMANDS = {"compare-history": compare_history}
"""Commands that this package adds, by name."""
