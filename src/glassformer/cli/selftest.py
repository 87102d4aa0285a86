"""`glassformer selftest`: compare the fast code paths with the exact ones on this machine."""

from __future__ import annotations

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json


def selftest(
    model: str = typer.Argument(None, metavar="[MODEL]", help="Your model; default: a small random one."),
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Check the fast code paths on this machine.

    Cached, batched, packed, compiled and int8 computation must give the results of plain computation within bounds. The
    exit code is 1 if a check fails.

    Example: glassformer selftest smollm2-135m-instruct
    """
    from glassformer.cli.options import open_for
    from glassformer.hub.published import PACKAGED
    from glassformer.recipes.selftest import selftest as run
    from glassformer.recipes.selftest import small_model

    loaded, tokenizer = small_model() if model is None else open_for("generate", model, device)
    published = PACKAGED.get(model)
    done = []
    for check in run(loaded, tokenizer, published.reference if published else None):
        done.append(check)
        if as_json:
            continue
        word = "left out" if check.difference is None else "ok" if check.held else "FAILED"
        off = check.why if check.difference is None else f"{check.difference:8.1e} of at most {check.bound:.0e}"
        typer.echo(f"{word:<9}{check.what:<50}{off:<30}{check.seconds:5.1f} s")
    if as_json:
        print_json([{**check._asdict(), "held": check.held} for check in done])
    if not all(check.held for check in done):
        raise typer.Exit(1)
