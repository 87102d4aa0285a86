"""`glassformer look lens`, `residual` and `attribution`: the stream from layer to layer, and who wrote what into it."""

from __future__ import annotations

import typer

from glassformer.cli.look.showing import HTML, JSON, MODEL, TARGET, TEXT, given, opened, show

_PLACE = typer.Option(None, metavar="N", help="At which token; left out, the last (of an encoder the first <mask>).")


def lens(
    model: str = MODEL,
    text: str = TEXT,
    pin: str = typer.Option(None, metavar="TOKEN", help="A token to follow through the layers."),
    position: int = _PLACE,
    top: int = typer.Option(5, metavar="N", help="The likeliest tokens of each layer."),
    target: str = TARGET,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """What each layer would say (the logit lens).

    The stream behind every layer is read by the model's own last norm and head.

    Example: glassformer look lens smollm2-135m-instruct "The capital of France is" --pin " Paris"
    """
    from glassformer.inspection import lens as looked

    loaded, tokenizer, source = opened(model)
    view = looked(
        loaded,
        tokenizer,
        given(text),
        pin=pin,
        position=position,
        top=top,
        target=target,
        source_tokenizer=source,
    )
    show(view, as_json, html)


def residual(
    model: str = MODEL,
    text: str = TEXT,
    position: int = _PLACE,
    target: str = TARGET,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """How long the stream is, and what adds to it.

    Example: glassformer look residual smollm2-135m-instruct "The capital of France is"
    """
    from glassformer.inspection import residual as looked

    loaded, tokenizer, source = opened(model)
    view = looked(loaded, tokenizer, given(text), position=position, target=target, source_tokenizer=source)
    show(view, as_json, html)


def attribution(
    model: str = MODEL,
    text: str = TEXT,
    token: str = typer.Option(None, metavar="TOKEN", help="Whose logit; left out, what the model says."),
    against: str = typer.Option(None, metavar="TOKEN", help="Take apart how much more likely it is than this one."),
    position: int = _PLACE,
    check: int = typer.Option(
        3, metavar="N", help="Ablate so many of the strongest heads, to see what really changes."
    ),
    target: str = TARGET,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Who made the model say it: a logit as a sum.

    Embedding, every head, every feed-forward and the biases add up to the logit (the norms being frozen).

    Example: glassformer look attribution smollm2-135m-instruct "The capital of France is" --against " London"
    """
    from glassformer.inspection import attribution as looked

    loaded, tokenizer, source = opened(model)
    view = looked(
        loaded,
        tokenizer,
        given(text),
        token=token,
        against=against,
        position=position,
        check=check,
        target=target,
        source_tokenizer=source,
    )
    show(view, as_json, html)
