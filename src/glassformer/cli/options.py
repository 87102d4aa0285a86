"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a checkpoint or a model folder.")]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts, each in quotes; default: every line of standard input."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(metavar="TYPE", help="fp32 (exact), auto, bf16, int8 or int4 (fast on a CPU).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="How many texts to compute at once.")]
Beam = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Beam width: 1 always takes the most likely token; default: the model's own, or 4.",
    ),
]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", metavar="N", help="The most tokens of one answer.")
]
Seed = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Same seed, same text; default: a new seed each time.")
]
TopP = Annotated[float | None, typer.Option(metavar="P", help="Keep the fewest tokens whose probability reaches p.")]
Colors = Annotated[bool, typer.Option("--colors", help="Color each token by its surprise (-log2 of its probability).")]


def seed_or_random(seed: int | None) -> int:
    """The seed, or a new one."""
    import random

    return random.SystemRandom().randrange(2**31) if seed is None else seed
