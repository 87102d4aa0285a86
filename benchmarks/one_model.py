"""One model for all beside specialists: text, drawn digits, captions and CartPole.

    python benchmarks/one_model.py --out FOLDER [--steps 1500] [--episodes 100]

The one model is the recipe `one-model`. A specialist has its size, steps and settings, and learns one kind of row
alone: as many of them a step as the one model reads of that kind. All are measured on test splits: bits per character
on the second half of the held-out text, bits per pixel, what a support vector machine reads in 500 drawn digits,
captions that are right to the letter, and returns in CartPole. With 95 % intervals.

Everything is kept in --out: after a stop the same command goes on, and what is finished is not made again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)

from glassformer.evaluation.estimate import Metric, Share
from glassformer.recipes import read_recipe
from glassformer.recipes.opening import open_run
from glassformer.recipes.stage_folder import StageFolder
from glassformer.tasks.generalist_rows import KINDS
from glassformer.threads import set_threads

RECIPE = "one-model"
ASKS = (500, 200, 100, 50)


def specialist(kind: str) -> list[str]:
    """The words that make a specialist of the recipe: as many rows as the one model reads of this kind."""
    recipe = read_recipe(RECIPE)
    weights = {name: recipe.task.settings.get(name, 1.0) for name in KINDS}
    rows = round(recipe.training.batch_size * weights[kind] / sum(weights.values()))
    return [f"training.batch_size={rows}", *(f"task.{other}=0" for other in KINDS if other != kind)]


def score(run: Path) -> dict[str, Any]:
    model, task = open_run(run)
    return task.extra_scores(model.eval(), "test").to_dict()  # type: ignore[no-any-return]


def rows_of(found: dict[str, Any]) -> dict[str, str]:
    """The figures of a model in words, by name."""
    rows = {}
    for name, title in (("text_bits", "bits per character"), ("draw_bits", "bits per pixel")):
        if name in found:
            m = Metric(*found[name])
            rows[title] = f"{m.value:.3f} ± {m.interval:.3f}"
    for name in ("drawn_digits_read_as_asked", "captions_right"):
        if name in found:
            rows[name.replace("_", " ")] = str(Share(**found[name]))
    for row in found.get("returns", ()):
        rows[f"CartPole, asked {row['asked']:g}"] = f"{row['got']:.1f} ± {row['interval']:.1f}"
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--episodes", type=int, default=100)
    arguments = parser.parse_args()
    set_threads()
    words = [f"task.episodes={arguments.episodes}", f"task.ask={list(ASKS)}", "training.checkpoint_every=100"]
    words += [f"training.steps={arguments.steps}"] if arguments.steps else []
    settings = {"benchmark": "one_model", "words": words}
    stages = StageFolder(arguments.out, settings, lambda line: print(line, flush=True))
    found: dict[str, dict[str, Any]] = {}
    for name, changes in {"one model": [], **{kind: specialist(kind) for kind in KINDS}}.items():
        run = stages.run(stages.out / name, RECIPE, [*words, *changes])
        found[name] = stages.made(stages.out / f"{name}, scores.json", lambda run=run: score(run))
        print(name, rows_of(found[name]), flush=True)
    alone = {title: words for kind in KINDS for title, words in rows_of(found[kind]).items()}
    print("\n| | one model | specialist |\n|---|---|---|")
    for title, text in rows_of(found["one model"]).items():
        print(f"| {title} | {text} | {alone.get(title, '')} |")


if __name__ == "__main__":
    main()
