"""A Decision Transformer beside behaviour cloning and cloning of the best 10 %, on the same data, in three worlds.

    python benchmarks/decision.py --out FOLDER [cartpole] [key-to-door] [pendulum]

Each is the recipe of that name: the same model, data and steps. Cloning reads every return as 0 and windows by time
step; "10 %" learns from the best tenth of the episodes alone. Each plays as many episodes with seeds that no episode of
the data has, taking the most likely action. Means have 95 % intervals (of the key and the door: Wilson's).

Everything is kept in --out: after a stop the same command goes on, and what is finished is not made again. Prints a
table when all of an environment is measured.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import _one_line  # noqa: F401  (first: it reports what is missing)

import glassformer as gf
from glassformer.evaluation.estimate import Share
from glassformer.generation.play import play
from glassformer.recipes.stage_folder import StageFolder
from glassformer.tasks.returns import return_of
from glassformer.threads import set_threads

CLONING = ["task.reads_returns=false", "task.sampling=step"]
METHODS = {
    "Decision Transformer": [],
    "behaviour cloning": CLONING,
    "cloning of the best 10 %": [*CLONING, "task.best=0.1"],
}


class Game(NamedTuple):
    """asks: the returns that a Decision Transformer is asked for. shares: whether an episode is paid 1 or nothing."""

    asks: tuple[float, ...]
    episodes: int
    shares: bool = False


GAMES = {
    "cartpole": Game((500, 400, 300, 200, 150, 100, 50, 25, 10), 100),
    "key-to-door": Game((1, 0), 200, shares=True),
    "pendulum": Game((-150, -300, -600, -900, -1200, -1500), 100),
}


def score(run: Path, asked: float | None, game: Game) -> dict[str, Any]:
    """The mean return with its 95 % interval, or the share of paid episodes."""
    bundle = gf.load(run)
    played = play(bundle.model, bundle.processor, target_return=asked, episodes=game.episodes)
    if game.shares:
        return {"asked": asked, **Share.of([episode.got > 0 for episode in played])._asdict()}
    mean = return_of(played)
    return {"asked": asked, "got": mean.value, "interval": mean.interval, "n": mean.n}


def words(found: dict[str, Any]) -> str:
    if "got" in found:
        return f"{found['got']:.1f} ± {found['interval']:.1f}"
    return str(Share(**{name: found[name] for name in Share._fields}))


def measure(stages: StageFolder, name: str, words_for_all: list[str]) -> None:
    """Train the three and let them play; print their table."""
    game, rows = GAMES[name], []
    for method, changes in METHODS.items():
        run = stages.run(stages.out / name / method.replace(" %", ""), name, [*changes, *words_for_all])
        for asked in game.asks if not changes else (None,):
            file = run.with_name(f"{run.name}, {'plays' if asked is None else f'asked {asked:g}'}.json")
            found = stages.made(file, lambda run=run, asked=asked: score(run, asked, game))
            rows.append((method if asked is None else f"asked {asked:g}", words(found)))
    print(f"\n{name} ({game.episodes} episodes each)\n\n| | got (95 %) |\n|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*GAMES, []], metavar="NAME", help="default: all three")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="of each training; default: the recipe's")
    arguments = parser.parse_args()
    set_threads()
    words = ["training.checkpoint_every=50", *([f"training.steps={arguments.steps}"] if arguments.steps else [])]
    settings = {"benchmark": "decision", "words": words}
    stages = StageFolder(arguments.out, settings, lambda line: print(line, flush=True))
    for name in arguments.names or GAMES:
        measure(stages, name, words)


if __name__ == "__main__":
    main()
