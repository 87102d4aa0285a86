"""`glassformer look context`, `neurons`, `neighbours`, `analogy`, `direction` and `components`: what vectors mean."""

from __future__ import annotations

import typer

from glassformer.cli.look.showing import HTML, JSON, MODEL, opened, show

_ROWS = typer.Option(10, "--top", metavar="N", help="How many to show.")


def context(
    model: str = MODEL,
    word: str = typer.Argument(metavar="WORD", help="A word that all texts hold."),
    texts: list[str] = typer.Argument(metavar="TEXT...", help="Two texts or more, each in quotes."),
    neighbours: int = typer.Option(5, metavar="N", help="Nearest tokens at each layer."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """The same word in several sentences, layer by layer.

    One vector at the embedding, several behind the blocks, and what is nearest to each.

    Examples:

    glassformer look context minilm-l6 mole "an American shrew mole" "one mole of carbon dioxide" "a biopsy of the mole"

    glassformer look context smollm2-135m-instruct model "a machine learning model" "a fashion model"
    """
    from glassformer.inspection import context as looked

    loaded, tokenizer, source = opened(model)
    show(looked(loaded, source or tokenizer, word, texts, neighbours=neighbours), as_json, html)


def neurons(
    model: str = MODEL,
    layer: int = typer.Option(0, metavar="N", help="Of this layer, from 0."),
    neuron: int = typer.Option(None, metavar="N", help="Of this neuron; left out, the pickiest of the layer."),
    source: str = typer.Option(
        None, "--data", metavar="SOURCE", help="Texts to look in: what train takes as --data; else the run's own."
    ),
    limit: int = typer.Option(100_000, "--characters", metavar="N", help="How much of them is read."),
    top: int = _ROWS,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """The feed-forward as questions: which texts excite a neuron.

    And which tokens it then speaks for, and against. A model of no run is shown Tiny Shakespeare.

    Example: glassformer look neurons runs/demo-1 --layer 1 --neuron 7
    """
    from glassformer.inspection import neurons as looked
    from glassformer.recipes.own_text import texts_for

    loaded, tokenizer, reader = opened(model)
    texts = texts_for(model, source, limit)
    show(looked(loaded, reader or tokenizer, texts, layer=layer, neuron=neuron, top=top), as_json, html)


def neighbours(
    model: str = MODEL,
    word: str = typer.Argument(metavar="WORD"),
    top: int = _ROWS,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Which words have a vector like this one's, in the embedding.

    Example: glassformer look neighbours runs/word-vectors-1 tower
    """
    from glassformer.inspection import neighbours as looked
    from glassformer.inspection import vectors_of

    loaded, tokenizer, _ = opened(model)
    show(looked(vectors_of(loaded, tokenizer), word, top), as_json, html)


def analogy(
    model: str = MODEL,
    a: str = typer.Argument(metavar="A"),
    b: str = typer.Argument(metavar="B"),
    c: str = typer.Argument(metavar="C"),
    expected: str = typer.Argument(None, metavar="[EXPECTED]", help="The word one hopes for; its rank is told."),
    top: int = _ROWS,
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """What is nearest to A - B + C.

    Told with and without the three themselves, which mostly are the nearest.

    Example: glassformer look analogy runs/word-vectors-1 king man woman queen
    """
    from glassformer.inspection import analogy as looked
    from glassformer.inspection import vectors_of

    loaded, tokenizer, _ = opened(model)
    show(looked(vectors_of(loaded, tokenizer), a, b, c, expected, top), as_json, html)


def direction(
    model: str = MODEL,
    pairs: list[str] = typer.Argument(metavar="FROM:TO...", help="Pairs of words, such as cat:cats."),
    along: list[str] = typer.Option(
        [], metavar="WORD", help="Where this word lies on it; may be given more than once."
    ),
    seed: int = typer.Option(0, metavar="NUMBER", help="Of the random pairs beside it."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """A direction from pairs of words, such as one to many.

    Each pair is judged by the direction of the others, beside as many pairs of random words.

    Example: glassformer look direction runs/word-vectors-1 cat:cats dog:dogs tree:trees --along one --along three
    """
    from glassformer.errors import UsageError
    from glassformer.inspection import direction as looked
    from glassformer.inspection import vectors_of

    split = [tuple(pair.split(":")) for pair in pairs]
    if wrong := next((pair for pair, words in zip(pairs, split, strict=True) if len(words) != 2), None):
        raise UsageError(f"{wrong!r} is no pair; write two words with a colon between them, such as cat:cats")
    loaded, tokenizer, _ = opened(model)
    show(looked(vectors_of(loaded, tokenizer), split, along, seed=seed), as_json, html)  # type: ignore[arg-type]


def components(
    model: str = MODEL,
    words: list[str] = typer.Argument(metavar="WORD...", help="Three words or more."),
    as_json: bool = JSON,
    html: str = HTML,
) -> None:
    """Words in the three directions of most difference (PCA).

    Example: glassformer look components runs/word-vectors-1 king queen man woman uncle aunt
    """
    from glassformer.inspection import pca, vectors_of

    loaded, tokenizer, _ = opened(model)
    show(pca(vectors_of(loaded, tokenizer), words), as_json, html)
