"""All lessons as a table: our losses beside the lecture's, and whether each step helps.

Neighbouring rungs differ by 0.02 to 0.05, about as much as two seeds of one rung. So each rung is trained with several
seeds, the same ones for all rungs (a seed decides the batches too), and compared seed by seed with the rung it builds
on: what is printed is the mean of the differences and its 95 % interval (Student's t).
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from glassformer.lessons.runner import LiveLoss, check_text, load

if TYPE_CHECKING:
    from torch import Tensor

MAX_SEEDS = 10


@dataclass(frozen=True)
class Rung:
    """A model of the ladder.

    lecture: the lecture's validation loss. against: the rung that it builds on. options: for its `LanguageModel`.
    """

    name: str
    lesson: int
    lecture: str
    against: str = ""
    trained: bool = True
    options: dict[str, Any] = field(default_factory=dict)


SCALED = "scaled up, dropout"
RUNGS = (
    Rung("random table", 1, "4.66", trained=False),
    Rung("table of pairs", 1, "2.5", "random table"),
    Rung("mean of the past", 2, "", "table of pairs"),
    Rung("one head", 3, "2.4", "table of pairs"),
    Rung("four heads", 4, "2.28", "one head"),
    Rung("feed-forward", 5, "2.24", "four heads"),
    Rung("three blocks, no residuals", 6, "no better", "feed-forward", options={"residual": False}),
    Rung("residuals", 6, "2.08", "three blocks, no residuals"),
    Rung("layer norm", 7, "2.06", "residuals"),
    Rung(SCALED, 8, "1.48", "layer norm"),
)


@dataclass(frozen=True)
class Row:
    """A rung with what it reached: validation losses over the whole split, one a seed, and wall time in seconds."""

    rung: Rung
    steps: int
    parameters: int
    losses: tuple[float, ...]
    seconds: float
    difference: tuple[float, float] | None  # loss less that of `rung.against`: mean, half of the 95 % interval

    def as_json(self) -> dict[str, Any]:
        """Plain numbers and texts; an interval that is not known (one seed) is null."""
        mean, interval = self.difference or (None, None)
        return {
            "rung": self.rung.name,
            "lesson": self.rung.lesson,
            "told": self.rung.lecture,
            "steps": self.steps,
            "parameters": self.parameters,
            "losses": list(self.losses),
            "mean": statistics.fmean(self.losses),
            "against": self.rung.against or None,
            "difference": mean,
            "interval": interval if interval is not None and math.isfinite(interval) else None,
            "seconds": round(self.seconds, 1),
        }


def paired_difference(losses: Sequence[float], before: Sequence[float]) -> tuple[float, float]:
    """Mean of the differences seed by seed, and half of its 95 % interval; infinite for one seed.

    >>> [round(x, 3) for x in paired_difference([2.0, 2.1, 2.3], [2.2, 2.2, 2.4])]
    [-0.133, 0.143]
    """
    differences = [a - b for a, b in zip(losses, before, strict=True)]
    mean, n = statistics.fmean(differences), len(differences)
    if n == 1:
        return mean, math.inf
    from scipy.stats import t

    return mean, float(t.ppf(0.975, n - 1)) * statistics.stdev(differences) / math.sqrt(n)


def climb(
    text: str,
    seeds: Sequence[int],
    *,
    steps: int | None = None,
    scaled_steps: int = 0,
    quiet: bool = False,
) -> Iterator[Row]:
    """Train every rung with every seed; a row as soon as it is known.

    steps: in place of each lesson's own. scaled_steps: of the last rung, which is left out at 0, and takes one seed.

    Raises:
        DataError: the text is too short.
    """
    import torch

    known: dict[str, tuple[float, ...]] = {}
    for rung in RUNGS:
        scaled = rung.name == SCALED
        if scaled and not scaled_steps:
            continue
        lesson, losses, started = load(rung.lesson), [], time.perf_counter()
        check_text(text, lesson)
        training, validation, vocab_size = split_ids(text)
        n_steps = scaled_steps if scaled else steps if steps is not None else lesson.STEPS
        n_steps = n_steps if rung.trained else 0
        for seed in seeds[:1] if scaled else seeds:
            torch.manual_seed(seed)
            model = lesson.LanguageModel(vocab_size, **rung.options).to(getattr(lesson, "DEVICE", "cpu"))
            report: Callable[[int, float], None] = _silent if quiet else _live_or_silent(n_steps, rung.name, seed)
            lesson.train(model, training, n_steps, seed, report)
            losses.append(lesson.evaluate(model, validation))
        known[rung.name] = tuple(losses)
        before = known.get(rung.against, ())[: len(losses)]
        yield Row(
            rung=rung,
            steps=n_steps,
            parameters=sum(p.numel() for p in model.parameters()),
            losses=tuple(losses),
            seconds=time.perf_counter() - started,
            difference=paired_difference(losses, before) if before else None,
        )


def replayed(text: str) -> float:
    """The very batch of the lecture, 4 x 8 at seed 1337, and its random table: 4.87 on Tiny Shakespeare."""
    import torch

    lesson, (training, _, vocab_size) = load(1), split_ids(text)
    batch = lesson.get_batch(training, 4, torch.Generator().manual_seed(1337))
    torch.manual_seed(1337)
    return float(lesson.LanguageModel(vocab_size)(*batch)[1].item())


HEAD = (
    f"{'rung':<27}{'lesson':>6}{'lecture':>11}{'here':>8}  {'change to what it builds on':<46}{'parameters':>11}"
    f"{'steps':>7}{'time':>8}"
)


def line(row: Row) -> str:
    """A row of the table as text."""
    change = ""
    if row.difference is not None:
        mean, interval = row.difference
        width = f" ± {interval:.3f}" if math.isfinite(interval) else ""
        change = f"{mean:+.3f}{width} ({row.rung.against})"
    return (
        f"{row.rung.name:<27}{row.rung.lesson:>6}{row.rung.lecture:>11}"
        f"{statistics.fmean(row.losses):>8.3f}  {change:<46}"
        f"{row.parameters:>11,}{row.steps:>7,}{row.seconds:>6,.0f} s"
    )


def split_ids(text: str) -> tuple[Tensor, Tensor, int]:
    """Training and validation ids as lesson 1 makes them, and the size of the vocabulary."""
    lesson = load(1)
    ids, characters = lesson.encode(text)
    return *lesson.split(ids), len(characters)


def _silent(step: int, loss: float) -> None:
    pass


def _live_or_silent(steps: int, name: str, seed: int) -> Callable[[int, float], None]:
    live = LiveLoss(steps, f"{name}, seed {seed} ")
    return live if live.live else _silent
