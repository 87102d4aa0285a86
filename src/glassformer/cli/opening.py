"""Open a model for a command, if the command fits it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from glassformer.hub import Bundle


def open_for(command: str, path: str, device: str, dtype: str = "fp32") -> Bundle:
    """The model with its tokenizers and labels; it unpacks as `model, tokenizer`.

    Raises:
        UsageError: the command does not fit this kind of model; the message names one that does.
    """
    from glassformer.errors import UsageError
    from glassformer.generation import commands_for
    from glassformer.hub import load
    from glassformer.models import Transformer, parameter_count
    from glassformer.threads import set_threads
    from glassformer.training import choose_device

    set_threads()
    bundle = load(path, device=choose_device(device), dtype=dtype)
    model, tokenizer = bundle
    if command not in (fitting := commands_for(model, tokenizer)):
        next_step = f"use: glassformer {fitting[0]} {path}" if fitting else "look inside: glassformer look --help"
        raise UsageError(f"{path}: its {type(model).__name__} does not {command}; {next_step}")
    if command == "generate":
        # a configuration counts matrices of few bits too, which are no parameters of the model
        is_transformer = isinstance(model, Transformer)
        set_threads(parameters=parameter_count(model.config) if is_transformer else model.parameter_count())
    return bundle


def show_defaults(model: Any, given: Mapping[str, Any]) -> None:
    """Print on standard error which settings come from the model's folder; nothing where none does.

    given: the values of flags by name; None: not given.
    """
    from glassformer.generation import from_the_folder

    if found := from_the_folder(model, given):
        shown = ", ".join(f"{name} {value:g}" for name, value in found.items())
        typer.echo(f"from the model's folder: {shown} (flags override)", err=True)
