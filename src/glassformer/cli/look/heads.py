"""`glassformer look attention`, `induction` and `step`: where the heads look, and how one of them computes it."""

from __future__ import annotations

import typer

from glassformer.cli.look.showing import HEAD, HTML, JSON, LAYER, MODEL, POSITION, TARGET, TEXT, given, opened, show

_KIND = typer.Option("self", metavar="KIND", help="self; of a translator also cross (at the source) and encoder.")


def attention(
    model: str = MODEL,
    text: str = TEXT,
    layer: int = LAYER,
    head: int = HEAD,
    kind: str = _KIND,
    keys_as_rows: bool = typer.Option(False, "--keys-as-rows", help="As the lecture draws it: a column a query."),
    target: str = TARGET,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Where every head looks while the model reads a text.

    Without --layer all heads in short; with it and --head, the pattern of one.

    Examples:

    glassformer look attention smollm2-135m-instruct "a fluffy blue creature roamed the verdant forest"

    glassformer look attention runs/demo-1 "To be, or not" --layer 1 --head 2 --keys-as-rows
    """
    from glassformer.inspection import attention as looked

    loaded, tokenizer, source = opened(model)
    view = looked(
        loaded,
        tokenizer,
        given(text),
        target=target,
        source_tokenizer=source,
        layer=layer,
        head=head,
        keys_as_rows=keys_as_rows,
        kind=kind,
    )
    show(view, as_json, html)


def induction(
    model: str = MODEL,
    length: int = typer.Option(None, metavar="N", help="How many random tokens are said twice; default 25."),
    seed: int = typer.Option(0, metavar="NUMBER", help="Which random tokens."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Which heads find what came after the same token before.

    Random tokens are said twice; an induction head, at each of the second time, looks at what followed the first.

    Example: glassformer look induction smollm2-135m-instruct
    """
    from glassformer.inspection import induction_scores

    loaded, tokenizer, _ = opened(model)
    show(induction_scores(loaded, tokenizer, length=length, seed=seed), as_json, html)


def step(
    model: str = MODEL,
    text: str = TEXT,
    layer: int = typer.Option(0, metavar="N", help="Of this layer, from 0."),
    head: int = typer.Option(0, metavar="N", help="Of this head, from 0."),
    position: int = POSITION,
    kind: str = _KIND,
    width: int = typer.Option(6, metavar="N", help="Numbers of a vector that are shown; --json gives all."),
    target: str = TARGET,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """One head, one query, every number on the way.

    x, q k v, q.k, / sqrt(D), mask, softmax, sum of v, output, add: each number is the sum of products of those before.

    Example: glassformer look step runs/demo-1 "To be" --layer 1 --head 2
    """
    from glassformer.inspection import step as stepped

    loaded, tokenizer, source = opened(model)
    view = stepped(
        loaded,
        tokenizer,
        given(text),
        layer=layer,
        head=head,
        position=position,
        kind=kind,
        target=target,
        source_tokenizer=source,
        width=width,
    )
    show(view, as_json, html)
