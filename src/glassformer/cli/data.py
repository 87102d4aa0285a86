"""`glassformer data`: list, get, prepare and show texts. The work is done in `glassformer.data`."""

from __future__ import annotations

import typer

from glassformer.cli.output import print_json

app = typer.Typer(
    help="List, fetch, prepare and show data to train on.\n\n"
    "A text is a named corpus, your own file or folder, standard input, or a dataset of the hub. Examples (pairs, "
    "labelled texts) are a named set, or your own .jsonl or .tsv.\n\n"
    "Example: glassformer data show tinyshakespeare",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SOURCE = (
    "A corpus name (glassformer data list), a .txt, .md, .jsonl or .json file, a folder, - for standard input, or a "
    "dataset of the hub as owner/name."
)
_FIELD = "The field of .jsonl lines, or the column of a hub dataset, that holds the text."
_JSON = "Print JSON for machines."


@app.command("list")
def list_(json: bool = typer.Option(False, "--json", help=_JSON)) -> None:
    """List the named corpora and sets of examples or images.

    Example: glassformer data list
    """
    from glassformer.data.corpora import CORPORA
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.data.images import IMAGE_SETS

    rows: list[dict] = [
        {"name": c.name, "bytes": c.bytes, "license": c.license, "origin": c.origin, "about": c.about}
        for c in CORPORA.values()
    ]
    rows += [
        {"name": e.name, "examples": e.count, "license": e.license, "origin": e.origin, "about": e.about}
        for e in EXAMPLE_SETS.values()
    ]
    rows += [
        {"name": s.name, "images": s.count, "license": s.license, "origin": s.origin, "about": s.about}
        for s in IMAGE_SETS.values()
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        count = next((f"{row[noun]:,} {noun}" for noun in ("examples", "images") if noun in row), "")
        size = count or _size(row["bytes"])
        typer.echo(f"{row['name']:<18}{size:<18}license: {row['license']}")
        typer.echo(f"{'':<18}{row['about']}\n{'':<18}{row['origin']}\n")


@app.command()
def get(name: str = typer.Argument(metavar="NAME", help="A name from: glassformer data list.")) -> None:
    """Fetch a corpus or a set of examples or images into the cache.

    Prints where the files are, and checks their SHA-256. (Debian's packages change with its releases; only apt checks
    those.)

    Example: glassformer data get tinyshakespeare
    """
    from glassformer.data.corpora import CORPORA
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.data.images import IMAGE_SETS
    from glassformer.errors import UsageError, did_you_mean
    from glassformer.fetch import fetch

    if name in EXAMPLE_SETS:
        typer.echo("\n".join(str(fetch(package)) for package in EXAMPLE_SETS[name].packages))
        return
    if name in IMAGE_SETS:
        typer.echo(fetch(IMAGE_SETS[name].source))
        return
    if name not in CORPORA:
        raise UsageError(f"no corpus is called {name!r}; {did_you_mean(name, [*CORPORA, *EXAMPLE_SETS, *IMAGE_SETS])}")
    typer.echo(CORPORA[name].file())


@app.command()
def prepare(
    source: str = typer.Argument(metavar="TEXT", help=_SOURCE),
    tokenizer: str = typer.Option(
        "characters", help="Its kind (characters, bytes, bpe, gpt2, ...), or the path of a saved one."
    ),
    vocab_size: int | None = typer.Option(
        None, help="Vocabulary size of a tokenizer that is learned here, such as bpe."
    ),
    out: str | None = typer.Option(None, help="The folder of the token store; default: one in the cache."),
    validation_fraction: float = typer.Option(0.1, help="The fraction of the bytes that is kept for validation."),
    text_field: str = typer.Option("text", help=_FIELD),
    max_tokens: int | None = typer.Option(None, help="Stop after N tokens."),
    json: bool = typer.Option(False, "--json", help=_JSON),
) -> None:
    """Tokenize a text into a token store on disk.

    The store has a training and a validation split. `train` does this by itself; do it first for a large text.

    Example: glassformer data prepare my.txt --tokenizer bpe --vocab-size 4096
    """
    from glassformer.data.prepare import prepare
    from glassformer.data.readers import keep_source
    from glassformer.data.vocabulary import tokenizer_for

    shared: dict = {"text_field": text_field, "validation_fraction": validation_fraction}
    source = keep_source(source)
    made = tokenizer_for(source, tokenizer, vocab_size=vocab_size, progress=not json, **shared)
    store = prepare(source, made, out=out, max_tokens=max_tokens, progress=not json, **shared)
    _show_store(store, json)


@app.command()
def show(
    source: str = typer.Argument(
        metavar="TEXT", help=_SOURCE + " Also the folder of a token store, a set of examples, or a .tsv of pairs."
    ),
    text_field: str = typer.Option("text", help=_FIELD),
    verify: bool = typer.Option(False, "--verify", help="Check every SHA-256 of a token store."),
    json: bool = typer.Option(False, "--json", help=_JSON),
) -> None:
    """Show what is in a text, a set of examples or a token store.

    A text: counts, split, first lines. Examples: counts, the first ones. A token store: counts, shards, the first
    tokens.

    Example: glassformer data show tinyshakespeare
    """
    from pathlib import Path

    from glassformer.data.example_sets import EXAMPLE_SETS

    if (Path(source) / "meta.json").is_file():
        from glassformer.data.token_store import TokenStore

        _show_store(TokenStore.open(source, verify=verify), json)
        return
    if source in EXAMPLE_SETS or (source.lower().endswith(".tsv") and Path(source).is_file()) or "," in source:
        _show_examples(source, json)
        return
    from glassformer.data.prepare import describe

    info = describe(source, text_field=text_field)
    if json:
        print_json(info._asdict())
        return
    for label, value in (
        ("source", f"{info.name} ({info.kind}), from {info.origin}"),
        ("license", info.license or "unknown"),
        ("bytes", "known after reading" if info.bytes is None else f"{info.bytes:,}"),
        ("characters", "known after reading" if info.characters is None else f"{info.characters:,}"),
        ("documents", "known after reading" if info.documents is None else f"{info.documents:,}"),
        ("split", info.split_rule),
    ):
        typer.echo(f"{label:<12}{value}")
    if info.first:
        typer.echo("\n" + "\n".join(info.first.splitlines()[:10]))


def _show_store(store, json: bool) -> None:
    meta, first = store.meta, store.split("train").read(0, min(16, len(store.split("train")))).tolist()
    if json:
        print_json({"folder": str(store.folder), **meta, "first_tokens": first})
        return
    tokenizer = meta["tokenizer"]
    typer.echo(f"{'store':<12}{store.folder}")
    typer.echo(f"{'source':<12}{meta['source']}; {meta['split_rule']}")
    typer.echo(f"{'tokenizer':<12}{tokenizer['kind']}, {tokenizer['vocab_size']:,} entries, {meta['dtype']}")
    for name, split in meta["splits"].items():
        ratio = f", {split['bytes'] / split['tokens']:.2f} bytes a token" if split["tokens"] else ""
        counts = f"{split['tokens']:,} tokens of {split['documents']:,} documents in {len(split['shards'])} shards"
        typer.echo(f"{name:<12}{counts}{ratio}")
    typer.echo(f"{'begins':<12}{' '.join(map(str, first))}")
    if (text := store.decode("train", 0, 16)) is not None:
        typer.echo(f"{'':<12}{text!r}")


def _show_examples(source: str, json: bool) -> None:
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.data.examples import load_examples

    splits, known = load_examples(source, quiet=json), EXAMPLE_SETS.get(source)
    first = [example._asdict() for example in splits["validation"][:5]]
    if json:
        about = {"origin": known.origin, "license": known.license, "split": known.split} if known else {}
        counts = {split: len(rows) for split, rows in splits.items()}
        print_json({"name": source, **about, "examples": counts, "first_validation_examples": first})
        return
    typer.echo(f"{'source':<12}{source}, from {known.origin if known else 'your files'}")
    typer.echo(f"{'license':<12}{known.license if known else 'unknown'}")
    if known:
        typer.echo(f"{'split':<12}{known.split}")
    for split, rows in splits.items():
        sources = len({example.source for example in rows})
        typer.echo(f"{split:<12}{len(rows):,} examples, {sources:,} different sources")
    for example in first:
        typer.echo(f"\n{example['source'][:300]}\n    -> {example['target'][:300]}")


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"
