"""`glassformer look parameters`, `tensors` and `tokens`: what a model consists of, and what it reads."""

from __future__ import annotations

from typing import Any

import typer

from glassformer.cli.look.showing import HTML, JSON, MODEL, given, opened, show

READY_MADE = ("gpt2", "bytes")  # kinds of tokenizers that are the same for every text


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
    model: str = typer.Argument(
        metavar="MODEL", help="A run, a model folder or a pulled model; with --tokenizer left out."
    ),
    text: str = typer.Argument(None, metavar="TEXT", help="A text, in quotes; - reads standard input."),
    tokenizer: str = typer.Option(
        None, "--tokenizer", metavar="NAME", help="gpt2 or bytes, or a tokenizer's file or folder: no model is needed."
    ),
    chunks: int = typer.Option(8, metavar="N", help="Of how many pieces the merges are shown."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """How a text is cut: ids, bytes, and the merges one by one.

    Examples:

    glassformer look tokens smollm2-135m-instruct "tokenisation, unbelievably"

    glassformer look tokens "tokenisation, unbelievably" --tokenizer gpt2
    """
    from glassformer.errors import UsageError
    from glassformer.hub import load_source_tokenizer
    from glassformer.inspection import tokens as looked

    if tokenizer is not None:
        if text is not None:
            raise UsageError(f"{model} and --tokenizer {tokenizer} both say how to cut the text; give one of the two")
        show(looked(_tokenizer(tokenizer), given(model), chunks=chunks), as_json, html)
        return
    if text is None:
        raise UsageError(
            'give a model and a text; or a text alone and a tokenizer: look tokens "TEXT" --tokenizer gpt2'
        )
    show(looked(load_source_tokenizer(model), given(text), chunks=chunks), as_json, html)


def _tokenizer(name: str) -> Any:
    """A tokenizer that needs no text to learn from, by the name of its kind; else from a file, a folder or a model."""
    from pathlib import Path

    from glassformer.errors import UsageError, did_you_mean
    from glassformer.hub import load_source_tokenizer
    from glassformer.processors.tokenizers import TOKENIZERS, build_tokenizer, load_tokenizer

    path = Path(name)
    if path.exists():
        is_model = (path / "config.json").is_file() or (path / "recipe.toml").is_file()
        return load_source_tokenizer(path) if is_model else load_tokenizer(path)
    if name in READY_MADE:
        return build_tokenizer(name)
    if name in TOKENIZERS:
        raise UsageError(
            f"--tokenizer {name}: one of this kind is made from a text; use {' or '.join(READY_MADE)}, or the file or "
            "folder of one that exists"
        )
    raise UsageError(f"--tokenizer {name}: no such file or folder, and no such kind; {did_you_mean(name, READY_MADE)}")
