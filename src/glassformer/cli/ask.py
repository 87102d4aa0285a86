"""`glassformer translate`, `classify`, `predict`, `tag` and `fill`: texts in, a model's answers out."""

from __future__ import annotations

from typing import Any

import typer

from glassformer.cli import options
from glassformer.cli.output import one_line, print_json, shortened


def translate(
    model: options.Run,
    texts: options.Texts = None,
    beam: options.Beam = None,
    length_penalty: float = typer.Option(
        None, metavar="ALPHA", help="Higher values favor longer answers; default: the model's own, or 0.6."
    ),
    n_best: int = typer.Option(1, metavar="N", help="Show the N best answers with their log-probabilities."),
    max_new_tokens: options.NewTokens = None,
    batch_size: options.BatchSize = 64,
    attention: str = typer.Option(None, metavar="FILE", help="Draw the cross-attention of one text as .svg or .html."),
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Translate a text, or answer it with another text.

    Beam search finds the most probable answer.

    Examples:

    glassformer translate runs/translate-en-fr-1 "Click the button."

    glassformer translate runs/translate-en-fr-1 "Click the button." --n-best 4 --attention heads.svg

    glassformer translate runs/translate-en-fr-1 < english.txt > french.txt
    """
    from glassformer.cli.options import open_for
    from glassformer.errors import UsageError
    from glassformer.generation import answer

    sources = _texts(texts)
    if attention is not None and len(sources) != 1:
        raise UsageError(f"--attention draws one text, and {len(sources)} were given; give one text")
    bundle = open_for("translate", model, device)
    answers = iter(
        answer(
            bundle.model,
            bundle.tokenizer,
            [text for text in sources if text.strip()],
            source_tokenizer=bundle.source_processor,
            beam=beam,
            length_penalty=length_penalty,
            n_best=n_best,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
        )
    )
    found = [(text, next(answers) if text.strip() else None) for text in sources]  # an empty line has no answer
    if attention is not None and found[0][1] is not None:
        _draw_attention(bundle, *found[0], attention)
    if as_json:
        print_json([{"source": text, "answer": best and best.to_dict()} for text, best in found])
        return
    for number, (_, best) in enumerate(found):
        if best is None or n_best == 1:
            typer.echo(one_line(best.text) if best else "")
            continue
        typer.echo("" if number else "log-prob.   score  answer")
        for each in (best, *best.alternatives):
            typer.echo(f"{each.log_probability:>9.2f} {each.score:>7.2f}  {one_line(each.text)}")
    if attention is not None:
        typer.echo(f"cross-attention drawn: {attention}", err=True)


def classify(
    model: options.Run,
    texts: options.Texts = None,
    image_size: int = typer.Option(
        None, metavar="N", min=1, help="Read images at another size; positions are interpolated. Default: the model's."
    ),
    shift: float = typer.Option(
        0.0,
        metavar="PIXELS",
        help="Of images: the mean over five copies, moved so far up, down, left and right; 0: off.",
    ),
    labels: str = typer.Option(
        None, metavar="A,B,...", help="For a model of images and texts: the texts to choose from for each image."
    ),
    pictures: str = typer.Option(
        None, metavar="FOLDER", help="For a model of images and texts: the images to choose from for each text."
    ),
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Classify texts, images, records or molecules.

    Give texts; for a model of images, paths of images; of records, JSON of a record; of molecules, SMILES. One image is
    drawn as a bar chart, several as a line each. A model of images and texts (CLIP) ranks labels of your own for an
    image, or the images of a folder for a text.

    Examples:

    glassformer classify runs/sentiment-1 "A film to remember."

    glassformer classify runs/digits-1 seven.png

    glassformer classify runs/mnist-1 photos/*.png --image-size 56

    glassformer classify runs/emoji-names-1 picture.png --labels "red apple, cat face, house"

    glassformer classify runs/emoji-names-1 "red apple" --pictures photos

    glassformer classify runs/sentiment-1 --json < reviews.txt
    """
    from glassformer import generation
    from glassformer.cli.options import open_for
    from glassformer.errors import UsageError

    given = _nonempty(texts)
    bundle = open_for("classify", model, device)
    if bundle.model.reads == "image_text":
        if image_size is not None:
            raise UsageError("--image-size is of a model of images alone; leave it out")
        if shift:
            raise UsageError("--shift is of a model of images alone; leave it out")
        _compare(bundle, given, labels, pictures, as_json)
        return
    if labels is not None or pictures is not None:
        option = "--labels" if labels is not None else "--pictures"
        raise UsageError(
            f"{option} is of a model of images and texts, such as glassformer train emoji-names; leave it out"
        )
    of_images = bundle.model.reads == "patches"
    if image_size is not None:
        bundle = _at_image_size(bundle, image_size)
    labels = bundle.labels
    p_NC = generation.classify(bundle.model, bundle.processor, given, batch_size=batch_size, shift=shift).tolist()
    rows = [dict(zip(labels, p_C, strict=True)) for p_C in p_NC]
    best = [max(row, key=row.__getitem__) for row in rows]
    if as_json:
        found, what = zip(given, best, rows, strict=True), "image" if of_images else "text"
        print_json([{what: each, "label": label, "probabilities": row} for each, label, row in found])
        return
    if of_images and len(given) == 1:
        _bar_chart(best[0], rows[0])
        return
    width = max((len(label) for label in labels), default=0)
    for text, label, row in zip(given, best, rows, strict=True):
        shares = "  ".join(f"{other} {row[other]:.1%}" for other in sorted(row, key=lambda name: -row[name])[:5])
        typer.echo(f"{label:<{width}}  {shares}" + (f"  {shortened(text)}" if len(given) > 1 else ""))


def predict(
    model: options.Run,
    texts: options.Texts = None,
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Predict a number for a text, a record or a molecule.

    Give texts; for a model of records, JSON of a record; for a model of molecules, SMILES.

    Examples:

    glassformer predict runs/diabetes-1 '{"age": 59, "sex": 2, "bmi": 32.1}'

    glassformer predict runs/solubility-1 "CCO" "c1ccccc1"
    """
    from glassformer import generation
    from glassformer.cli.options import open_for

    given = _nonempty(texts)
    bundle = open_for("predict", model, device)
    numbers = generation.predict(bundle.model, bundle.processor, given, batch_size=batch_size).tolist()
    if as_json:
        print_json([{"text": text, "number": number} for text, number in zip(given, numbers, strict=True)])
        return
    for text, number in zip(given, numbers, strict=True):
        typer.echo(f"{number:.4g}" + (f"  {shortened(text)}" if len(given) > 1 else ""))


def _at_image_size(bundle: Any, image_size: int) -> Any:
    """The model and its processor for images of another size."""
    from dataclasses import replace

    from glassformer.models.image_size import at_image_size

    model = at_image_size(bundle.model, image_size)
    return replace(bundle, model=model, processor=replace(bundle.processor, size=(image_size,) * 2, resize=None))


def _compare(bundle: Any, given: list[str], labels: str | None, pictures: str | None, as_json: bool) -> None:
    """For each image the labels, or for each text the pictures, by probability."""
    from pathlib import Path

    from glassformer.data.images import SUFFIXES
    from glassformer.errors import DataError, UsageError
    from glassformer.generation.image_text import similarities

    if bundle.processor is None:
        raise DataError("the model's folder has no preprocessor_config.json, which says how images are read; add it")
    if (labels is None) == (pictures is None):
        raise UsageError('give images and --labels "a, b, c", or texts and --pictures FOLDER: one of the two')
    if labels is not None:
        others = list(dict.fromkeys(label.strip() for label in labels.split(",") if label.strip()))
        if len(others) < 2:
            raise UsageError(f"--labels {labels!r}: give two different texts or more, with commas between them")
        logits_NM = similarities(bundle.model, bundle.processor, given, others)
    else:
        folder = Path(str(pictures))
        files = sorted(file for file in folder.glob("*") if file.suffix.lower() in SUFFIXES)
        if not files:
            raise DataError(f"{folder}: no pictures there; give a folder with {', '.join(SUFFIXES)} files")
        others = [file.name for file in files]
        logits_NM = similarities(bundle.model, bundle.processor, files, given).T
    rows = [dict(zip(others, p, strict=True)) for p in logits_NM.softmax(dim=1).tolist()]
    best = [max(row, key=row.__getitem__) for row in rows]
    if as_json:
        what, which = ("image", "label") if labels is not None else ("text", "picture")
        found = zip(given, best, rows, strict=True)
        print_json([{what: each, which: name, "probabilities": row} for each, name, row in found])
        return
    for text, name, row in zip(given, best, rows, strict=True):
        _bar_chart(name, row, title=f"{Path(text).name if labels is not None else text}: {name}")


def _bar_chart(best: str, p_by_class: dict[str, float], most: int = 10, title: str = "") -> None:
    """The most likely classes, each with a bar as long as its probability."""
    from rich.console import Console

    from glassformer.figures import Column, Table, to_terminal

    rows = sorted(p_by_class.items(), key=lambda row: -row[1])
    rest = [("all others", sum(p for _, p in rows[most:]))] if len(rows) > most else []
    table = Table(
        title or f"This is {best}", [Column("class"), Column("probability", "share")], rows[:most], footer=rest
    )
    console = Console(highlight=False)
    for part in to_terminal([table], console, console.options):
        console.print(part)


def tag(
    model: options.Run,
    texts: options.Texts = None,
    words: bool = typer.Option(False, help="Split at spaces only; otherwise punctuation is split from words too."),
    batch_size: options.BatchSize = 64,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Tag each word of a text.

    Prints each text on one line, its words as word/TAG; a tag is, for example, the part of speech.

    Examples:

    glassformer tag runs/pos-tags-1 "Ankara'da hava bugün çok güzel."

    glassformer tag runs/pos-tags-1 --json < sentences.txt
    """
    from glassformer import generation
    from glassformer.cli.options import open_for

    given = _nonempty(texts)
    bundle = open_for("tag", model, device)
    split = [text.split() if words else generation.words_of(text) for text in given]
    found = generation.tag(bundle.model, bundle.tokenizer, split, batch_size=batch_size)
    rows = []
    for its_words, p_TV in zip(split, found, strict=True):
        best = zip(its_words, *(part.tolist() for part in p_TV.max(dim=1)), strict=True)
        rows.append([{"word": word, "tag": bundle.labels[i], "probability": p} for word, p, i in best])
    if as_json:
        print_json([{"text": text, "words": row} for text, row in zip(given, rows, strict=True)])
        return
    for row in rows:
        typer.echo(" ".join(f"{word['word']}/{word['tag']}" for word in row))


def fill(
    model: options.Run,
    texts: options.Texts = None,
    alternatives: int = typer.Option(5, metavar="N", help="For an encoder: show the N most likely tokens."),
    beam: options.Beam = None,
    n_best: int = typer.Option(1, metavar="N", help="For a span model: show the N best fillings, or N samples."),
    temperature: float = typer.Option(None, metavar="T", help="For a span model: sample; higher is more random."),
    seed: options.Seed = None,
    max_new_tokens: options.NewTokens = None,
    device: options.Device = "auto",
    as_json: options.Json = False,
) -> None:
    """Fill the gaps of a text, each written <mask>.

    An encoder (BERT) fills one token a gap; a span model (T5) fills one or more.

    Examples:

    glassformer fill runs/masked-reviews-1 "The film was <mask> ."

    glassformer fill runs/spans-reviews-1 "The film <mask> and I <mask> it." --temperature 0.8 --n-best 3
    """
    from glassformer.cli.options import open_for
    from glassformer.errors import UsageError
    from glassformer.generation import Sampling, fill_masks, fill_spans

    given = _nonempty(texts)
    loaded, tokenizer = open_for("fill", model, device)
    result: list[dict[str, Any]] = []
    if "target" in loaded.answers:
        if seed is not None and temperature is None:
            raise UsageError("--seed needs sampling; add --temperature 0.8")
        sampling = None if temperature is None else Sampling(temperature, seed=options.seed_or_random(seed))
        settings: dict[str, Any] = {"beam": beam, "n_best": n_best, "sampling": sampling}
        if max_new_tokens is not None:
            settings["max_new_tokens"] = max_new_tokens
        for text in given:
            ways = fill_spans(loaded, tokenizer, text, **settings)
            result.append({"text": text, "fillings": [way.to_dict() for way in ways]})
    else:
        for text in given:
            masks, way = fill_masks(loaded, tokenizer, text, alternatives=alternatives)
            shown = [[vars(alternative) for alternative in row] for row in masks]
            result.append({"text": text, "masks": shown, "fillings": [way.to_dict()]})
    if as_json:
        print_json(result)
        return
    for row in result:
        for number, mask in enumerate(row.get("masks", []), 1):
            shares = "  ".join(f"{a['text'].strip() or '␣'} {a['probability']:.1%}" for a in mask)
            typer.echo(f"mask {number}: {shares}")
        for way in row["fillings"]:
            typer.echo(one_line(way["text"]))


def _texts(given: list[str] | None) -> list[str]:
    """The texts of the arguments, or the lines of standard input."""
    from glassformer.errors import UsageError

    if given:
        if not any(text.strip() for text in given):
            raise UsageError("the text is empty; give it one word")
        return list(given)
    text = options.read_stdin("no text was given; put one in quotes, or pipe a file of lines into it")
    if not text.strip():
        raise UsageError("standard input has no text; pipe a file of lines into it, or give a text in quotes")
    return [line.rstrip("\r") for line in text.removesuffix("\n").split("\n")]


def _nonempty(given: list[str] | None) -> list[str]:
    return [text for text in _texts(given) if text.strip()]


def _draw_attention(bundle: Any, text: str, best: Any, path: str) -> None:
    """Write the picture of the cross-attention."""
    from glassformer.figures import cross_attention_figures, save
    from glassformer.generation import cross_attention, source_ids

    model, tokenizer = bundle
    reader = bundle.source_processor
    source, target = source_ids(reader, text), [*best.tokens, model.config.end_token]
    weights = cross_attention(model, source, target).float().numpy()
    labels = [reader.token_text(i) for i in source], [tokenizer.token_text(i) for i in target]
    save(cross_attention_figures(weights, *labels), path, f"{shortened(text)} → {shortened(best.text)}")
