"""`glassformer generate`: continue a prompt; on request show the distribution of every token."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import piece_printer, print_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from glassformer.generation import Piece

TEMPERATURE = 0.8


def generate(
    model: options.Run,
    prompt: str = typer.Option(
        None, "--prompt", "-p", metavar="TEXT", help="The text to continue; - reads standard input."
    ),
    prompt_file: str = typer.Option(None, metavar="FILE", help="A file that holds the prompt."),
    max_new_tokens: int = typer.Option(
        None,
        "--max-new-tokens",
        "-n",
        metavar="N",
        help="The most new tokens; default: the model's own, or 200.",
    ),
    temperature: float = typer.Option(
        None, metavar="T", help="0: the most likely token; higher: more random; default: the model's own, or 0.8."
    ),
    top_k: int = typer.Option(None, metavar="K", help="Keep the k most likely tokens; 0 keeps all."),
    top_p: options.TopP = None,
    min_p: float = typer.Option(None, metavar="P", help="Keep tokens with at least P times the highest probability."),
    repetition_penalty: float = typer.Option(
        None, metavar="R", help="Above 1: make tokens that occurred already less likely."
    ),
    seed: options.Seed = None,
    stop: list[str] = typer.Option([], metavar="TEXT", help="Stop before this text; repeat for more than one."),
    json_schema: options.JsonSchema = None,
    grammar: options.LarkGrammar = None,
    samples: int = typer.Option(1, metavar="N", help="How many texts to generate."),
    alternatives: int = typer.Option(0, metavar="N", help="Show the N most likely tokens beside each token."),
    colors: options.Colors = False,
    window: str = typer.Option(
        "half",
        metavar="HOW",
        help="When the context is full: half (keep half; fast) or exact (drop one token).",
    ),
    stream: bool = typer.Option(True, help="Print tokens as they come, or the whole text at the end."),
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    adapter: options.Adapter = None,
    endless: bool = typer.Option(False, "--endless", help="Generate until Ctrl-C, in constant memory."),
    as_json: bool = typer.Option(False, "--json", help="Print each text as a line of JSON with its tokens."),
    json_tokens: bool = typer.Option(False, "--json-tokens", help="Print each token as a line of JSON as it comes."),
) -> None:
    """Continue a prompt with a trained model.

    Examples:

    glassformer generate runs/demo-1 --prompt "ROMEO:"

    glassformer generate runs/demo-1 --prompt "To be" -n 20 --alternatives 5

    cat scene.txt | glassformer generate runs/demo-1 --prompt - --samples 3

    glassformer generate smollm2-135m-instruct --prompt "Ann is 31 years old. As JSON:" --json-schema person.json

    glassformer generate runs/demo-1 --endless
    """
    from dataclasses import asdict

    from glassformer import generation
    from glassformer.cli.options import open_for, show_defaults

    _check(max_new_tokens, samples, endless, as_json)
    text = _prompt(prompt, prompt_file)
    loaded, tokenizer = open_for("generate", model, device, dtype, adapter)
    given: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
    }
    show_defaults(loaded, {**given, "max_new_tokens": 1 if endless else max_new_tokens})
    given["seed"] = options.seed_or_random(seed)
    sampling = generation.sampling_of(loaded, given, {"temperature": TEMPERATURE})
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        **asdict(sampling),
        "stop": stop,
        "alternatives": alternatives,
        "window": window,
    }
    follows = options.read_grammar(tokenizer, json_schema, grammar)
    if json_tokens or endless or (not as_json and stream and samples == 1):
        pieces = generation.stream(
            loaded, tokenizer, text, samples=samples, endless=endless, grammar=follows, **settings
        )
        if json_tokens:
            for piece in pieces:
                print_json(piece.to_dict(), indent=None)
        else:
            _print(pieces, text, alternatives=alternatives, colors=colors, endless=endless)
        return
    completions = generation.generate(loaded, tokenizer, text, samples=samples, grammar=follows, **settings)
    settings |= {"json_schema": json_schema, "grammar": grammar}
    for i, done in enumerate(completions):
        if as_json:
            own = {"prompt": text, "sample": i, "settings": {**settings, "seed": sampling.seed + i}}
            print_json({**own, **done.to_dict()}, indent=None)
            continue
        if samples > 1:
            typer.echo(f"{'' if i == 0 else chr(10)}--- sample {i + 1} of {samples} (seed {sampling.seed + i})")
        _print(done.pieces, text, alternatives=alternatives, colors=colors)


def _check(max_new_tokens: int | None, samples: int, endless: bool, as_json: bool) -> None:
    """Raise `UsageError` for contradicting options about the length."""
    from glassformer.errors import UsageError

    if max_new_tokens is not None and max_new_tokens < 0:
        raise UsageError(f"-n {max_new_tokens} must be 0 or more; to generate until Ctrl-C give --endless")
    if max_new_tokens == 0:
        typer.echo("-n 0: nothing is generated; to generate until Ctrl-C give --endless", err=True)
    if endless and max_new_tokens is not None:
        raise UsageError(f"--endless and -n {max_new_tokens} contradict each other; give one of them")
    if endless and samples != 1:
        raise UsageError(f"--endless never starts a second text, and --samples {samples} was given; leave it out")
    if endless and as_json:
        raise UsageError("--endless has no whole text for --json; use --json-tokens")


def _prompt(prompt: str | None, prompt_file: str | None) -> str:
    from glassformer.errors import UsageError

    if prompt_file is None:
        return options.text_or_stdin(prompt or "")
    if prompt is not None:
        raise UsageError("--prompt and --prompt-file were both given; use one")
    return options.read_file(prompt_file, "the prompt").replace("\r\n", "\n")


def _print(pieces: Iterable[Piece], prompt: str, *, alternatives: int, colors: bool, endless: bool = False) -> None:
    """Print the prompt and its continuation; with alternatives, a line of bars for each token."""
    if alternatives:
        _print_bars(pieces, prompt)
        return
    print_piece = piece_printer(colors)
    sys.stdout.write(prompt)
    try:
        for piece in pieces:
            print_piece(piece)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
        if not endless:  # endless text ends only this way
            raise
    else:
        sys.stdout.write("\n")


def _print_bars(pieces: Iterable[Piece], prompt: str) -> None:
    """Print a line for each token: the token, then the model's most likely tokens as bars, with a cross before those
    that a grammar does not allow."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    console.print(Text(prompt, style="dim"))
    console.print(Text("taken       prob. │ the most likely tokens", style="dim"))
    for piece in pieces:
        console.print(_bar_line(piece, console.width), no_wrap=True, overflow="crop")


def _bar_line(piece: Piece, width: int) -> Any:
    from rich.text import Text

    from glassformer.figures import bar, visible

    line = Text()
    line.append(f"{visible(piece.token_text, 10):<11}", style="bold yellow")
    line.append(f"{piece.probability:>6.1%} │", style="dim")
    cell = max(12, (width - 19) // max(1, len(piece.alternatives)))
    for other in piece.alternatives:
        mark = "" if other.allowed else "✗"
        label = f" {mark}{visible(other.text, max(3, cell - 8 - len(mark)))} {other.probability:.0%} "
        filled = bar(other.probability, max(1, cell - len(label)))
        taken = other.token == piece.token
        line.append(label, style="bold yellow" if taken else "")
        line.append(f"{filled:<{max(1, cell - len(label))}}", style="yellow" if taken else "blue")
    return line
