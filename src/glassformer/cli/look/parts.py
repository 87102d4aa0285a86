"""`glassformer look parameters`, `tensors` and `tokens`: what a model consists of, and what it reads."""

from __future__ import annotations

import typer

from glassformer.cli.look.showing import HTML, JSON, MODEL, TEXT, given, opened, show


def parameters(
    model: str = typer.Argument(metavar="MODEL", help="A model, or the name of a size such as gpt2 or gpt3."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """The tally of all parameters, in eight categories.

    They are the lecture's; what it leaves out is told too. A size is counted without being built.

    Example: glassformer look parameters gpt3
    """
    from pathlib import Path

    from glassformer.inspection import parameters as counted
    from glassformer.models import SIZES

    is_size = model in SIZES and not Path(model).exists()
    show(counted(model if is_size else opened(model)[0]), as_json, html)


def tensors(
    model: str = MODEL,
    pattern: str = typer.Argument("*", metavar="[NAME]", help="A name, or a pattern such as 'blocks.0.*'."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Every tensor: shape, numbers in short, histogram.

    One that is called by its whole name is also drawn.

    Example: glassformer look tensors runs/demo-1 "blocks.0.*"
    """
    from glassformer.inspection import tensor as looked_at_one
    from glassformer.inspection import tensors as looked

    loaded, _, _ = opened(model)
    one = pattern in dict(loaded.named_parameters())
    show(looked_at_one(loaded, pattern) if one else looked(loaded, pattern), as_json, html)


def tokens(
    model: str = MODEL,
    text: str = TEXT,
    chunks: int = typer.Option(8, metavar="N", help="Of how many pieces the merges are shown."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """How a text is cut: ids, bytes, and the merges one by one.

    Example: glassformer look tokens smollm2-135m-instruct "tokenisation, unbelievably"
    """
    from glassformer.inspection import tokens as looked
    from glassformer.interchange import load_source_tokenizer

    show(looked(load_source_tokenizer(model), given(text), chunks=chunks), as_json, html)
