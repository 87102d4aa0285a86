"""`glassformer look next`, `surprise` and `compare`: what comes next, and how likely it was."""

from __future__ import annotations

from typing import Any

import typer

from glassformer.cli.look.showing import HTML, JSON, MODEL, POSITION, TARGET, TEXT, given, opened, show

_TEMPERATURE = typer.Option(1.0, metavar="T", help="Divides the logits; 0 takes the most likely token.")
_TOP_K = typer.Option(0, metavar="K", help="Keep the k most likely tokens; 0 keeps all.")
_TOP_P = typer.Option(1.0, metavar="P", help="Keep the fewest tokens whose probability reaches p.")
_MIN_P = typer.Option(0.0, metavar="P", help="Keep tokens at least this fraction as likely as the best.")
_PENALTY = typer.Option(1.0, metavar="R", help="Above 1, tokens that already came are less likely.")
_SEED = typer.Option(0, metavar="NUMBER", help="Which dart is thrown: that of glassformer generate --seed.")


def next_(
    model: str = MODEL,
    text: str = TEXT,
    temperature: float = _TEMPERATURE,
    top_k: int = _TOP_K,
    top_p: float = _TOP_P,
    min_p: float = _MIN_P,
    repetition_penalty: float = _PENALTY,
    seed: int = _SEED,
    position: int = POSITION,
    top: int = typer.Option(10, metavar="N", help="Rows to show; --json gives every token of the vocabulary."),
    target: str = TARGET,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """The whole distribution over the next token.

    With what temperature and filters leave of it, why a token was cut, and what the seed draws.

    Examples:

    glassformer look next smollm2-135m-instruct "Once upon a time there was a"

    glassformer look next runs/demo-1 "To be, or not to " --temperature 0.8 --top-k 5 --seed 1
    """
    from glassformer.inspection import next_token

    loaded, tokenizer, source = opened(model)
    view = next_token(
        loaded,
        tokenizer,
        given(text),
        position=position,
        top=top,
        target=target,
        source_tokenizer=source,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )
    show(view, as_json, html)


def surprise(
    model: str = MODEL,
    text: str = TEXT,
    target: str = TARGET,
    window: int = typer.Option(None, metavar="N", help="Tokens read together; left out, as many as the model reads."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Bits of surprise at each token of a text.

    Their mean, in nats, is the loss that evaluate tells.

    Examples:

    glassformer look surprise runs/demo-1 "To be, or not to be"

    glassformer look surprise smollm2-135m-instruct - < letter.txt
    """
    from glassformer.inspection import surprise as surprised

    loaded, tokenizer, source = opened(model)
    show(
        surprised(loaded, tokenizer, given(text), target=target, source_tokenizer=source, window=window), as_json, html
    )


def compare(
    model: str = MODEL,
    text: str = TEXT,
    temperature: list[float] = typer.Option([], metavar="T", help="May be given more than once; else 0.5, 1 and 2."),
    other: list[str] = typer.Option(
        [], "--with", metavar="MODEL", help="Other models beside it, all at one temperature."
    ),
    top_k: int = _TOP_K,
    top_p: float = _TOP_P,
    min_p: float = _MIN_P,
    seed: int = _SEED,
    top: int = typer.Option(8, metavar="N", help="The most likely tokens of each."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """One text at several temperatures, or by several models.

    Examples:

    glassformer look compare smollm2-135m-instruct "Once upon a time there was a" --temperature 0.5 --temperature 1.5

    glassformer look compare runs/demo-1 "ROMEO:" --with runs/mine
    """
    from glassformer.errors import UsageError
    from glassformer.inspection import compare as compared
    from glassformer.inspection import next_token

    if other and len(temperature) > 1:
        raise UsageError("several models and several temperatures were given; compare the ones or the others")
    asked = given(text)
    draw: dict[str, Any] = {"top_k": top_k, "top_p": top_p, "min_p": min_p, "seed": seed}
    views: dict[str, Any] = {}
    for path in (model, *other):
        loaded, tokenizer, source = opened(path)
        for degree in temperature or ([1.0] if other else [0.5, 1.0, 2.0]):
            name = path.rstrip("/").rpartition("/")[2] if other else f"T={degree:g}"
            while name in views:
                name += "'"
            views[name] = next_token(loaded, tokenizer, asked, source_tokenizer=source, temperature=degree, **draw)
    show(compared(views, top=top), as_json, html)
