"""`glassformer diffuse`: write a text and its gaps by diffusion, step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import typer

from glassformer.cli import options
from glassformer.cli.output import print_json

if TYPE_CHECKING:
    from glassformer.generation import Draft

TEMPERATURE = 0.8
STYLES = {"hidden": "dim", "written": "bold green", "there": ""}


def diffuse(
    model: options.Run,
    prompt: str = typer.Option(
        "",
        "--prompt",
        "-p",
        metavar="TEXT",
        help="Its gaps are written: <mask> is one token, <mask:40> forty; without gaps, the text is continued. "
        "- reads standard input.",
    ),
    max_new_tokens: int = typer.Option(
        None, "--max-new-tokens", "-n", metavar="N", help="The new tokens of a text without gaps; default 200."
    ),
    steps: int = typer.Option(None, metavar="N", help="How many steps; default: one for each token."),
    order: str = typer.Option(
        "random", metavar="HOW", help="What a step writes: random places, or those of the highest confidence."
    ),
    remask: float = typer.Option(
        0.0, metavar="SHARE", help="Share of the written tokens, the least sure, that each step hides again."
    ),
    block: int = typer.Option(None, metavar="N", help="Tokens written together; default: as many as the model reads."),
    temperature: float = typer.Option(
        None, metavar="T", help="0: the most likely token; higher: more random; default: the model's own, or 0.8."
    ),
    top_k: int = typer.Option(None, metavar="K", help="Keep the k most likely tokens; 0 keeps all."),
    top_p: options.TopP = None,
    seed: options.Seed = None,
    samples: int = typer.Option(1, metavar="N", min=1, help="How many texts to write."),
    every: int = typer.Option(
        None, metavar="N", min=1, help="Print every Nth draft; default: an animation in a terminal, else the last one."
    ),
    device: options.Device = "auto",
    as_json: bool = typer.Option(False, "--json", help="Print each text as a line of JSON with all its steps."),
) -> None:
    """Write a text by diffusion: draft and revise it.

    Every step writes some of the hidden tokens (▒), anywhere in the text, with what stands on both sides in view.

    Examples:

    glassformer diffuse runs/shakespeare-diffusion-1 --prompt "ROMEO:" -n 200

    glassformer diffuse runs/shakespeare-diffusion-1 --prompt "ROMEO: <mask:40> my love." --every 8

    glassformer diffuse runs/shakespeare-diffusion-1 --steps 50 --order confidence --remask 0.1
    """
    from dataclasses import replace

    from glassformer import generation
    from glassformer.cli.options import open_for

    text = options.text_or_stdin(prompt)
    loaded, tokenizer = open_for("diffuse", model, device)
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": options.seed_or_random(seed)}
    sampling = generation.sampling_of(loaded, given, {"temperature": TEMPERATURE})
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "steps": steps,
        "order": order,
        "remask": remask,
        "block": block,
    }
    for i in range(samples):
        each = replace(sampling, seed=sampling.seed + i)
        drafts = generation.diffuse(loaded, tokenizer, text, **settings, sampling=each)
        if as_json:
            print_json({"prompt": text, "seed": each.seed, **_all(drafts)}, indent=None)
            continue
        if samples > 1:
            typer.echo(f"{chr(10) if i else ''}--- sample {i + 1} of {samples} (seed {each.seed})")
        if every is None and sys.stdout.isatty():
            _animate(drafts)
        else:
            _print(drafts, every)


def _all(drafts: Iterator[Draft]) -> dict[str, Any]:
    found = list(drafts)
    return {"text": found[-1].text, "steps": [draft.to_dict() for draft in found]}


def _animate(drafts: Iterator[Draft]) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console = Console(highlight=False)
    with Live(console=console, vertical_overflow="visible", refresh_per_second=20) as live:
        for draft in drafts:
            live.update(Text(draft.text) if draft.step == draft.steps else _styled(draft), refresh=True)


def _print(drafts: Iterator[Draft], every: int | None) -> None:
    """Every `every`th draft and the last one, with what its step did; None: the last one alone."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    for draft in drafts:
        last = draft.step == draft.steps
        if every is not None and (last or draft.step % every == 0 or draft.step == 1):
            erased = f", hid {len(draft.erased):,} again" if draft.erased else ""
            console.print(f"--- step {draft.step} of {draft.steps}: wrote {len(draft.written):,}{erased}", style="dim")
            console.print(_styled(draft))
        elif last:
            sys.stdout.write(f"{draft.text}\n")


def _styled(draft: Draft) -> Any:
    from rich.text import Text

    return Text.assemble(*((text, STYLES[kind]) for kind, text in draft.parts()))
