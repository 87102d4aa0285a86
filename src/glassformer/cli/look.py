"""`glassformer look VIEW MODEL ...`: a command for every entry of `VIEWS`, made from the signature of its function."""

from __future__ import annotations

import inspect
import types
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

import typer
from typer.core import TyperCommand, TyperGroup

from glassformer.cli.options import Adapter, text_or_stdin
from glassformer.cli.output import print_json
from glassformer.view_options import Parameter, inputs_of, parameters_of
from glassformer.views import OLD_NAMES, VIEWS, find

if TYPE_CHECKING:
    from glassformer.inspection.look import Subject

MODEL = typer.Argument(metavar="MODEL", help="A run, a model folder or a pulled model.")
METAVARS: dict[Any, str] = {int: "N", float: "X", str: "TEXT"}
READY_MADE = ("gpt2", "bytes")  # tokenizers that are the same for every text


class Views(TyperGroup):
    """Lists names and summaries at once; a view's file, and torch with it, is imported when the view runs."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._add_views()

    def _add_views(self) -> None:
        for name, entry in VIEWS.items():
            self.commands.setdefault(name, TyperCommand(name, help=entry.summary, rich_markup_mode=None))

    def list_commands(self, ctx: Any) -> list[str]:
        _load_plugins()
        self._add_views()
        return list(self.commands)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.commands:
            _load_plugins()
            self._add_views()
        name, _, rest = super().resolve_command(ctx, [OLD_NAMES.get(args[0], args[0]), *args[1:]])
        return name, command_for(str(name)), rest


app = typer.Typer(
    cls=Views,
    help="Look inside a model.\n\n"
    "A view is drawn in the terminal; --json prints all its numbers, and --html writes it as a self-contained page.\n\n"
    'Example: glassformer look next runs/demo-1 "To be, or not to "',
    no_args_is_help=True,
    rich_markup_mode=None,
)


@app.callback()
def _look() -> None:
    """Makes `app` a group although no command is registered by hand."""


def _load_plugins() -> None:
    from glassformer.plugins import load_named  # those in the package add no view, and import torch

    load_named()


def command_for(name: str) -> Any:
    """The command of a view."""
    entry = find(name)
    function = entry.declaration()
    needs, options = inputs_of(function), parameters_of(function)
    takes_tokenizer = needs == ["input_tokenizer"]
    parameters = [_parameter("model", str, MODEL)]
    for option in options:
        parameters += CORPUS if option.name == "corpus" else [_of_option(option, optional=takes_tokenizer)]
    parameters += (TOKENIZER if takes_tokenizer else ADAPTER) + OUTPUT

    def run(model: str, as_json: bool, html: str | None, **values: Any) -> None:
        from glassformer.inspection.look import show

        if takes_tokenizer:
            model, values["text"], subject = _tokenizer_of(model, values["text"], values.pop("tokenizer"))
        else:
            subject = open_model(model, or_size="model_or_size" in needs, adapter=values.pop("adapter"))
        if "text" in values:
            values["text"] = text_or_stdin(values["text"])
        if any(option.name == "corpus" for option in options):
            from glassformer.recipes.opening import texts_for

            values["corpus"] = texts_for(model, values.pop("data"), values.pop("characters"))
        present(show(name, subject, values), as_json, html)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in parameters}
    alone = typer.Typer(add_completion=False, rich_markup_mode=None)
    alone.command(name, help=_help(entry.summary, function))(run)
    return typer.main.get_command(alone)


def _parameter(name: str, kind: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


CORPUS = [
    _parameter(
        "data",
        str,
        typer.Option(None, metavar="SOURCE", help="The texts, as for train --data; default: the run's own."),
    ),
    _parameter(
        "characters", int, typer.Option(100_000, metavar="N", min=1, help="How many characters of them to read.")
    ),
]
TOKENIZER = [
    _parameter(
        "tokenizer",
        str,
        typer.Option(None, metavar="NAME", help="Needs no MODEL: gpt2, bytes, or the file or folder of a tokenizer."),
    )
]
ADAPTER = [_parameter("adapter", Adapter, None)]
OUTPUT = [
    _parameter("as_json", bool, typer.Option(False, "--json", help="Print all numbers as JSON.")),
    _parameter("html", str, typer.Option(None, "--html", metavar="FILE", help="Write a self-contained page.")),
]


def _of_option(p: Parameter, optional: bool) -> inspect.Parameter:
    """An option as a parameter for typer."""
    kind, text = _kind(p.annotation), f"{p.option.description} {p.option.command}".strip()
    if not p.keyword_only and p.is_required and not optional:
        return _parameter(p.name, kind, typer.Argument(metavar=p.name.upper(), help=text))
    default: Any = None if p.is_required else p.default
    if not p.keyword_only:
        return _parameter(p.name, kind, typer.Argument(default, metavar=p.name.upper(), help=text))
    flag = f"--{p.option.flag or p.name.replace('_', '-')}"
    many = get_origin(kind) is list
    unit = METAVARS.get(get_args(kind)[0] if many else kind)
    default = list(default) if many else default
    return _parameter(p.name, kind, typer.Option(default, flag, metavar=unit, help=text, min=p.option.ge))


def _kind(annotation: Any) -> Any:
    """The type for typer: int, float, bool, str or a list of one of them; any other type is parsed from a string."""
    origin, args = get_origin(annotation), list(get_args(annotation))
    if origin in (Union, types.UnionType):
        kinds = [_kind(a) for a in args if a is not type(None)]
        return str if str in kinds else kinds[0]
    if hasattr(annotation, "__metadata__"):
        return _kind(args[0])
    if origin is not None and origin is not Literal and origin is not tuple:
        return types.GenericAlias(list, _kind(args[0]))
    return annotation if annotation in (int, float, bool) else str


def _help(summary: str, function: Any) -> str:
    """The summary, the docstring without its first line, `Args:` and `Raises:`, and the examples."""
    paragraphs = inspect.getdoc(function) or ""
    more = paragraphs.partition("Args:")[0].partition("Raises:")[0].split("\n\n")[1:]
    examples: tuple[str, ...] = getattr(function, "examples", ())
    title = ["Examples:"] if len(examples) > 1 else []
    shown = [f"Example: {examples[0]}"] if len(examples) == 1 else examples
    return "\n\n".join(part.strip() for part in (summary, *more, *title, *shown) if part.strip())


def open_model(path: str, *, or_size: bool = False, adapter: str | None = None) -> Subject:
    """A model of any kind in fp32, and the tokenizers that belong to it; with `or_size`, also the name of a size."""
    from pathlib import Path

    from glassformer.errors import UsageError
    from glassformer.inspection.look import Subject, open_subject
    from glassformer.models import SIZES
    from glassformer.threads import set_threads

    if or_size and path in SIZES and not Path(path).exists():
        if adapter is not None:
            raise UsageError(f"{path} is the name of a size, without weights to adapt; leave --adapter out")
        return Subject(path)
    set_threads()
    return open_subject(path, adapter)


def _tokenizer_of(model: str, text: str | None, tokenizer: str | None) -> tuple[str, str, Subject]:
    """(the model, the text, a subject with a tokenizer alone): `MODEL TEXT`, or `TEXT --tokenizer NAME`."""
    from glassformer.errors import UsageError
    from glassformer.hub.loading import load_tokenizer_of
    from glassformer.inspection.look import Subject

    if tokenizer is None:
        if text is None:
            raise UsageError(
                'give a model and a text; or a text alone and a tokenizer: look tokens "TEXT" --tokenizer gpt2'
            )
        return model, text, Subject(model, tokenizer=load_tokenizer_of(model))
    if text is not None:
        raise UsageError(f"{model} and --tokenizer {tokenizer} both choose a tokenizer; give one of the two")
    return tokenizer, model, Subject(tokenizer, tokenizer=_tokenizer(tokenizer))


def _tokenizer(name: str) -> Any:
    """A tokenizer that needs no training text, by the name of its kind; else one from a file, a folder or a model."""
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
    rule = (
        f"one of this kind is made from a text; use {' or '.join(READY_MADE)}, or the file or folder of one that exists"
        if name in TOKENIZERS
        else f"no such file or folder, and no such kind; {did_you_mean(name, READY_MADE)}"
    )
    raise UsageError(f"--tokenizer {name}: {rule}")


def present(view: Any, as_json: bool, html: str | None) -> None:
    """Draw a view, print it as JSON, or write it as a page."""
    if html is not None:
        from pathlib import Path

        from glassformer.files import write_text

        write_text(Path(html), view.to_html())
        typer.echo(f"{html}: open it in a browser", err=True)
    if as_json:
        print_json(view.to_dict(), indent=None)
    elif html is None:
        from rich.console import Console

        Console(highlight=False).print(view)
