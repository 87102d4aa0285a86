"""`glassformer translate`, `classify` and `fill`: a text in, what a model that reads makes of it out."""

from __future__ import annotations

import sys
from typing import Any

import typer

from glassformer.cli.telling import print_json

_RUN = typer.Argument(metavar="RUN", help="A run folder, a checkpoint or a model folder.")
_TEXTS = typer.Argument(None, metavar="TEXT", help="Texts, each in quotes; none: every line of standard input.")
_DEVICE = typer.Option("auto", metavar="DEVICE", help="auto, cpu or cuda.")
_JSON = typer.Option(False, "--json", help="Print JSON for machines.")
_BEAM = typer.Option(
    None,
    metavar="N",
    help="Beginnings kept while searching, 4 unless the model's folder says; 1 takes the likeliest token each time.",
)
_PENALTY = typer.Option(
    None,
    metavar="ALPHA",
    help="How much longer answers are favoured: 0 not at all; 0.6 unless the model's folder says.",
)
_LENGTH = typer.Option(None, "--max-new-tokens", "-n", metavar="N", help="How many tokens an answer has at most.")


def translate(
    model: str = _RUN,
    texts: list[str] = _TEXTS,
    beam: int = _BEAM,
    length_penalty: float = _PENALTY,
    n_best: int = typer.Option(1, metavar="N", help="Show the N best answers with their log-probabilities."),
    max_new_tokens: int = _LENGTH,
    batch_size: int = typer.Option(64, metavar="N", help="Texts that are read together."),
    attention: str = typer.Option(
        None, metavar="FILE", help="Draw where the model looked for each word: an .svg or .html, of one text."
    ),
    device: str = _DEVICE,
    as_json: bool = _JSON,
) -> None:
    """Answer a text, for example with its translation.

    The answer is searched by its probability, several beginnings at a time (beam search).

    Examples:

    glassformer translate runs/translate-en-fr-1 "Click the button."

    glassformer translate runs/translate-en-fr-1 "Click the button." --n-best 4 --attention looked.svg

    glassformer translate runs/translate-en-fr-1 < english.txt > french.txt
    """
    from glassformer.cli.opening import open_for
    from glassformer.errors import UsageError
    from glassformer.generation import answer
    from glassformer.hub import load_source_tokenizer

    given = _texts(texts)
    if attention is not None and len(given) != 1:
        raise UsageError(f"--attention draws one text, and {len(given)} were given; ask for it alone")
    loaded, tokenizer = open_for("translate", model, device)
    reader = load_source_tokenizer(model)
    asked = [text for text in given if text.strip()]  # an empty line of a file stays an empty line
    answers = iter(
        answer(
            loaded,
            tokenizer,
            asked,
            source_tokenizer=reader,
            beam=beam,
            length_penalty=length_penalty,
            n_best=n_best,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
    )
    found = [(text, next(answers) if text.strip() else None) for text in given]
    if attention is not None and found[0][1] is not None:
        _draw(loaded, tokenizer, reader, *found[0], attention)
    if as_json:
        print_json([{"source": text, "answer": None if said is None else said.to_dict()} for text, said in found])
        return
    for number, (_, said) in enumerate(found):
        if said is None:
            typer.echo("")
        elif n_best == 1:
            typer.echo(_one_line(said.text))
        else:
            typer.echo("" if number else "log-prob.   score  answer")
            for each in (said, *said.alternatives):
                typer.echo(f"{each.log_probability:>9.2f} {each.score:>7.2f}  {_one_line(each.text)}")
    if attention is not None:
        typer.echo(f"where it looked: {attention}", err=True)


def classify(
    model: str = _RUN,
    texts: list[str] = _TEXTS,
    batch_size: int = typer.Option(64, metavar="N", help="Texts that are read together."),
    device: str = _DEVICE,
    as_json: bool = _JSON,
) -> None:
    """Say how likely each class is for a text.

    Examples:

    glassformer classify runs/sentiment-1 "A film to remember."

    glassformer classify runs/sentiment-1 --json < reviews.txt
    """
    from glassformer.cli.opening import open_for
    from glassformer.generation import classify as ask
    from glassformer.hub import load_labels

    given = [text for text in _texts(texts) if text.strip()]
    loaded, tokenizer = open_for("classify", model, device)
    labels = load_labels(model)
    chances = ask(loaded, tokenizer, given, batch_size=batch_size).tolist()
    told = [dict(zip(labels, row, strict=True)) for row in chances]
    best = [max(row, key=lambda label: row[label]) for row in told]
    if as_json:
        rows = zip(given, best, told, strict=True)
        print_json([{"text": text, "label": label, "probabilities": row} for text, label, row in rows])
        return
    width = max((len(label) for label in labels), default=0)
    for text, label, row in zip(given, best, told, strict=True):
        others = sorted(row, key=lambda other: -row[other])[:5]
        shares = "  ".join(f"{other} {row[other]:.1%}" for other in others)
        typer.echo(f"{label:<{width}}  {shares}" + (f"  {_shortened(text)}" if len(given) > 1 else ""))


def fill(
    model: str = _RUN,
    texts: list[str] = _TEXTS,
    alternatives: int = typer.Option(5, metavar="N", help="Of an encoder: so many of the likeliest tokens."),
    beam: int = _BEAM,
    n_best: int = typer.Option(1, metavar="N", help="Of a span model: the N best fillings, or so many draws."),
    temperature: float = typer.Option(None, metavar="T", help="Of a span model: draw; larger is wilder."),
    seed: int = typer.Option(None, metavar="NUMBER", help="Same seed, same draws; a new one each time when left out."),
    max_new_tokens: int = _LENGTH,
    device: str = _DEVICE,
    as_json: bool = _JSON,
) -> None:
    """Fill what is missing in a text, each gap written <mask>.

    An encoder of masked tokens says which tokens are likely there; a span model (T5) writes one or many.

    Examples:

    glassformer fill runs/masked-reviews-1 "The film was <mask> ."

    glassformer fill runs/spans-reviews-1 "The film <mask> and I <mask> it." --temperature 0.8 --n-best 3
    """
    from glassformer.cli.opening import open_for
    from glassformer.generation import fill_masks, fill_spans

    given = [text for text in _texts(texts) if text.strip()]
    loaded, tokenizer = open_for("fill", model, device)
    result: list[dict[str, Any]] = []
    if "target" in loaded.answers:
        settings: dict[str, Any] = {"beam": beam, "n_best": n_best, "sampling": _sampling(temperature, seed)}
        if max_new_tokens is not None:
            settings["max_new_tokens"] = max_new_tokens
        for text in given:
            ways = fill_spans(loaded, tokenizer, text, **settings)
            result.append({"text": text, "fillings": [way.to_dict() for way in ways]})
    else:
        for text in given:
            masks, way = fill_masks(loaded, tokenizer, text, alternatives=alternatives)
            told = [[{"token": a.token, "text": a.text, "probability": a.probability} for a in row] for row in masks]
            result.append({"text": text, "masks": told, "fillings": [way.to_dict()]})
    if as_json:
        print_json(result)
        return
    for row in result:
        for number, mask in enumerate(row.get("masks", []), 1):
            shares = "  ".join(f"{a['text'].strip() or '␣'} {a['probability']:.1%}" for a in mask)
            typer.echo(f"mask {number}: {shares}")
        for way in row["fillings"]:
            typer.echo(_one_line(way["text"]))


def _texts(given: list[str] | None) -> list[str]:
    """What was given as arguments, or the lines of standard input."""
    from glassformer.errors import UsageError
    from glassformer.text_files import decode

    if given:
        if not any(text.strip() for text in given):
            raise UsageError("the text is empty; give it one word")
        return list(given)
    if sys.stdin.isatty():
        raise UsageError("no text was given; put one in quotes, or pipe a file of lines into it")
    try:
        lines = [line.rstrip("\r") for line in decode(sys.stdin.buffer.read()).removesuffix("\n").split("\n")]
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text; convert it with iconv -t UTF-8") from None
    if not any(line.strip() for line in lines):
        raise UsageError("standard input holds no text; pipe a file of lines into it, or give a text in quotes")
    return lines


def _sampling(temperature: float | None, seed: int | None) -> Any:
    """How to draw, or None: search."""
    import random

    from glassformer.errors import UsageError
    from glassformer.generation import Sampling

    if temperature is None:
        if seed is not None:
            raise UsageError("--seed is for draws; add --temperature 0.8")
        return None
    return Sampling(temperature=temperature, seed=random.SystemRandom().randrange(2**31) if seed is None else seed)


def _draw(model: Any, tokenizer: Any, reader: Any, text: str, said: Any, path: str) -> None:
    """The picture of where the model looked."""
    from glassformer.figures import cross_attention_figures, save
    from glassformer.generation import cross_attention, source_ids

    source, target = source_ids(reader, text), [*said.tokens, model.config.end_token]
    weights = cross_attention(model, source, target).float().numpy()
    labels = [reader.token_text(i) for i in source], [tokenizer.token_text(i) for i in target]
    title = f"{_shortened(text)} → {_shortened(said.text)}"
    save(cross_attention_figures(weights, *labels), path, title)


def _one_line(text: str) -> str:
    """An answer as one line, so that line n answers line n."""
    return " ".join(text.splitlines())


def _shortened(text: str, width: int = 48) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"
