"""Arguments and options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Run = Annotated[str, typer.Argument(metavar="RUN", help="A run folder, a checkpoint or a model folder.")]
Texts = Annotated[
    list[str] | None,
    typer.Argument(metavar="TEXT", help="Texts, each in quotes; none: every line of standard input."),
]
Device = Annotated[str, typer.Option(metavar="DEVICE", help="auto, cpu or cuda.")]
Dtype = Annotated[str, typer.Option(metavar="TYPE", help="fp32 (exact), auto, bf16, int8 or int4 (fast on a CPU).")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
BatchSize = Annotated[int, typer.Option(metavar="N", help="Texts that are read together.")]
Beam = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        help="Beginnings kept while searching, 4 unless the model's folder says; 1: the likeliest token each time.",
    ),
]
NewTokens = Annotated[
    int | None, typer.Option("--max-new-tokens", "-n", metavar="N", help="How many tokens an answer has at most.")
]
Seed = Annotated[
    int | None, typer.Option(metavar="NUMBER", help="Same seed, same text; a new one each time when left out.")
]
TopP = Annotated[float | None, typer.Option(metavar="P", help="Keep the fewest tokens whose probability reaches p.")]
Colors = Annotated[bool, typer.Option("--colors", help="Color tokens by how surprising they were.")]


def seed_or_random(seed: int | None) -> int:
    """The seed, or a new one."""
    import random

    return random.SystemRandom().randrange(2**31) if seed is None else seed
