"""Returns asked for against returns got, and the picture of an episode."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from glassformer.errors import plural
from glassformer.evaluation.estimate import Metric
from glassformer.figures.primitives import Curves, Figure, HeatMap, Line, Note
from glassformer.generation.play import Episode, play
from glassformer.processors.trajectory import TrajectoryProcessor

MAX_FRAMES = 60  # that are shown
MAX_STEPS = 120  # whose policy is drawn


def return_of(episodes: Sequence[Episode]) -> Metric:
    """The mean return, and half the width of its 95 % interval."""
    got = np.array([episode.got for episode in episodes])
    half = 1.96 * float(got.std(ddof=1)) / math.sqrt(len(got)) if len(got) > 1 else math.inf
    return Metric(float(got.mean()), len(got), half)


def played_words(episodes: Sequence[Episode]) -> str:
    """ "asked 200, got 187.30 ± 2.10 (95 %, 12 episodes)"."""
    asked, m = episodes[0].asked, return_of(episodes)
    words = f"{'' if asked is None else f'asked {asked:g}, '}got {m.value:.2f}"
    return f"{words} ± {m.interval:.2f} (95 %, {plural(m.n, 'episode')})" if m.n > 1 else words


@dataclass(frozen=True)
class AskedAndGot:
    """Mean returns, each with its 95 % interval, by what was asked for; None: nothing could be asked for."""

    environment: str
    got: list[tuple[float | None, Metric]]
    lacking: ClassVar[str] = "it plays no environment; give a run of task.kind=decision"

    def to_dict(self) -> dict[str, Any]:
        rows = [{"asked": asked, "got": m.value, "interval": m.interval, "n": m.n} for asked, m in self.got]
        return {"environment": self.environment, "returns": rows}

    def lines(self) -> list[str]:
        """For `glassformer evaluate`."""
        return [
            f"{'' if asked is None else f'asked {asked:g}, '}got {m.value:.2f} ± {m.interval:.2f} "
            f"(95 %, {m.n:,} episodes of {self.environment})"
            for asked, m in self.got
        ]

    def figures(self) -> list[Figure]:
        """Got over asked."""
        return self.together({"model": self})

    @staticmethod
    def together(models: Mapping[str, AskedAndGot]) -> list[Figure]:
        """Got over asked with intervals, a line for each model; a model that reads no return is a level."""
        lines, levels, asks = [], [], set[float]()
        for name, scores in models.items():
            if scores.got[0][0] is None:
                levels.append((name, scores.got[0][1].value))
                continue
            asked = [float(a or 0.0) for a, _ in scores.got]
            value, half = (np.array([getattr(m, part) for _, m in scores.got]) for part in ("value", "interval"))
            lines.append(Line(name, asked, value, value - half, value + half, dots=True))
            asks.update(asked)
        if not lines:
            return []
        ends = [min(asks), max(asks)]
        exact = Line("got what was asked", ends, ends, faint=True)
        title = f"Returns got by returns asked for, {next(iter(models.values())).environment}"
        return [Curves(title, [*lines, exact], "asked", "got", levels=levels, y_from_zero=min(ends) >= 0)]


def asked_and_got(
    model: Any, processor: TrajectoryProcessor, asks: Sequence[float | None], episodes: int, *, seed: int = 0,
    temperature: float | None = None, environment: str | None = None,
) -> AskedAndGot:  # fmt: skip
    """Play so many episodes for each return that is asked for. Raises as `play`."""
    found: list[tuple[float | None, Metric]] = []
    for asked in asks:
        played = play(
            model, processor, environment, target_return=asked, episodes=episodes, seed=seed, temperature=temperature
        )
        found.append((asked, return_of(played)))
    return AskedAndGot(environment or processor.environment or "", found)


def episode_figures(episode: Episode) -> list[Figure]:
    """An episode: in words; its pictures, if there are some; rewards, observations and actions over its steps."""
    T = len(episode.rewards)
    asked = "" if episode.asked is None else f"Asked for {episode.asked:g}, "
    cut = "; it was stopped where the model knows no further step" if episode.cut else ""
    made: list[Figure] = [Note(f"{asked}got {episode.got:g} in {T:,} steps (seed {episode.seed}){cut}.")]
    if episode.frames:
        made.append(Note(_side_by_side(episode.frames[:MAX_FRAMES]), "The episode, step by step", verbatim=True))
    steps = list(range(T))
    if episode.asked is not None:
        made.append(Curves.over("What is still asked for", steps, {"return-to-go": episode.returns_to_go}, "step"))
    seen = np.array(episode.observations)
    lines = [Line(f"observation {i}", steps, seen[:, i]) for i in range(seen.shape[1])]
    made.append(Curves("What is seen", lines, "step", y_from_zero=False))
    if episode.policy:
        last = np.array(episode.policy)[-MAX_STEPS:]
        rows, columns = ([str(n) for n in r] for r in (range(last.shape[1]), range(T - len(last), T)))
        title = "How likely each action was" + (f", the last {MAX_STEPS} steps" if len(last) < T else "")
        made.append(HeatMap(title, last.T, rows, columns, "action", "step", "share", highest=1.0))
    else:
        done = np.array(episode.actions)
        chosen = [Line(f"action {i}", steps, done[:, i]) for i in range(done.shape[1])]
        made.append(Curves("What is done", chosen, "step", y_from_zero=False))
    return made


def _side_by_side(frames: Sequence[str], width: int = 78) -> str:
    """Pictures of text in rows, each with its step above."""
    blocks = [[f"{number}", *frame.splitlines()] for number, frame in enumerate(frames)]
    wide = 3 + max(len(line) for block in blocks for line in block)
    across, text = max(1, width // wide), []
    for start in range(0, len(blocks), across):
        row = blocks[start : start + across]
        high = max(map(len, row))
        for line in range(high):
            cells = [block[line] if line < len(block) else "" for block in row]
            text.append("".join(cell.ljust(wide) for cell in cells).rstrip())
        text.append("")
    return "\n".join(text).rstrip()
