"""Arguments, options and inputs that several commands share, and opening a model for a command."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from glassformer.generation import Grammar
    from glassformer.hub import Bundle

Model = Annotated[str, typer.Argument(metavar="MODEL", help="A run, a model folder or a pulled model.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a checkpoint or a model folder.")]
RunFolder = Annotated[str, typer.Argument(metavar="RUN", help="The run folder.")]
RecipeAndSettings = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="RECIPE SECTION.KEY=VALUE", help="A recipe (name or path), and settings that replace its own."
    ),
]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts, each in quotes; default: every line of standard input."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
TrainingDevice = Annotated[str | None, typer.Option(metavar="DEVICE", help="auto, cpu, cuda or cuda:N.")]
Dtype = Annotated[
    str, typer.Option(metavar="TYPE", help="auto (exact on a CPU), fp32, bf16, int8 or int4 (faster on a CPU).")
]
Adapter = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A LoRA adapter of this model (peft's format), or a run that made one."),
]
JsonSchema = Annotated[
    str | None, typer.Option(metavar="FILE", help="Write JSON of the schema in this file (needs the extra grammar).")
]
LarkGrammar = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Write what follows this grammar in Lark's form (needs the extra grammar)."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress while training.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="How many texts to compute at once.")]
Beam = Annotated[
    int | None,
    typer.Option(metavar="N", help="Beam width: 1 always takes the most likely token; default: the model's own, or 4."),
]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", metavar="N", help="The most tokens of one answer.")
]
Seed = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Same seed, same text; default: a new seed each time.")
]
TopP = Annotated[
    float | None, typer.Option(metavar="P", help="Keep the most likely tokens that together have probability P.")
]
Colors = Annotated[bool, typer.Option("--colors", help="Color each token by its surprise (-log2 of its probability).")]


def seed_or_random(seed: int | None) -> int:
    """The seed, or a new one."""
    import random

    return random.SystemRandom().randrange(2**31) if seed is None else seed


def split_recipe(words: list[str] | None) -> tuple[str | None, list[str]]:
    """(the recipe, if the first word is one; the settings)."""
    words = words or []
    if words and "=" not in words[0]:
        return words[0], words[1:]
    return None, words


def read_stdin(if_keyboard: str) -> str:
    """All of standard input as text.

    Raises:
        UsageError: standard input is the keyboard (with the message `if_keyboard`), or not UTF-8.
    """
    from glassformer.errors import UsageError
    from glassformer.text_files import decode

    if sys.stdin.isatty():
        raise UsageError(if_keyboard)
    try:
        return decode(sys.stdin.buffer.read())
    except UnicodeDecodeError:
        raise UsageError("standard input is not UTF-8 text; convert it with iconv -t UTF-8") from None


def read_file(path: str, what: str) -> str:
    """The text of a file.

    Raises:
        UsageError: it cannot be read, or is not UTF-8.
    """
    from pathlib import Path

    from glassformer.errors import UsageError
    from glassformer.text_files import decode

    try:
        return decode(Path(path).read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or "").lower() if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"{path}: {what} cannot be read ({reason}); give a plain text file") from None


def read_grammar(tokenizer: Any, json_schema: str | None, grammar: str | None) -> Grammar | None:
    """The grammar of --json-schema FILE or --grammar FILE; None: neither is given.

    Raises:
        UsageError: both are given; it cannot be read or is refused. MissingExtraError: there is no llguidance.
    """
    from glassformer.errors import UsageError
    from glassformer.generation import Grammar

    if json_schema is not None and grammar is not None:
        raise UsageError("--json-schema and --grammar both say what the text may be; give one of them")
    path = grammar if json_schema is None else json_schema
    if path is None:
        return None
    make, what = (Grammar.lark, "the grammar") if json_schema is None else (Grammar.json_schema, "the JSON schema")
    text = read_file(path, what)
    try:
        return make(tokenizer, text)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def text_or_stdin(text: str) -> str:
    """The text; all of standard input for `-`."""
    return (
        read_stdin("- reads standard input, which is the keyboard here; pipe a text into it") if text == "-" else text
    )


def open_for(command: str, path: str, device: str, dtype: str = "fp32", adapter: str | None = None) -> Bundle:
    """The model with its tokenizers and labels; it unpacks as `model, tokenizer`.

    Raises:
        UsageError: the command does not fit this kind of model; the message names one that does.
    """
    from glassformer.errors import UsageError
    from glassformer.generation import commands_for
    from glassformer.generation.generalist import part_for
    from glassformer.hub import load
    from glassformer.models import Transformer, parameter_count
    from glassformer.threads import set_threads
    from glassformer.training import choose_device

    set_threads()
    whole = load(path, device=choose_device(device), dtype=dtype, adapter=adapter)
    bundle = part_for(command, whole)
    model, tokenizer = bundle.model, whole.tokenizer
    if command not in (fitting := commands_for(model, tokenizer)):
        next_step = f"use: glassformer {fitting[0]} {path}" if fitting else "look inside: glassformer look --help"
        raise UsageError(f"{path}: its {type(model).__name__} does not {command}; {next_step}")
    if command == "generate":
        # matrices of few bits are no parameters of the model, so they are counted from its configuration
        is_transformer = isinstance(model, Transformer)
        set_threads(parameters=parameter_count(model.config) if is_transformer else model.parameter_count())
    return bundle


def show_defaults(model: Any, given: Mapping[str, Any]) -> None:
    """Print on standard error which settings come from the model's folder. given: flags by name; None: not given."""
    from glassformer.generation import from_the_folder

    if found := from_the_folder(model, given):
        shown = ", ".join(f"{name} {value:g}" for name, value in found.items())
        typer.echo(f"from the model's folder: {shown} (flags override)", err=True)
