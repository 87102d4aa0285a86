"""Predicted against actual: plan a recipe, then really train it in a process of its own. On a quiet machine only.

    python benchmarks/plan_accuracy.py [NAME ...]

Prints JSON: for each recipe seconds in the loop, peak resident memory and validation loss, predicted, actual and their
ratio; and whether memory is within 15 % and time within 25 %. Both sides are the command line, one after the other.
The loss of the shortened ones is that of the steps they make.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)

from glassformer.recipes.plan import against_actual

GPT2 = ["training.steps=3", "training.batch_size=1", "training.micro_batch_size=1", "training.eval_batches=2"]
CASES = {
    "shakespeare-fast": ["shakespeare-fast"],
    "shakespeare-char-cpu": ["shakespeare-char-cpu"],
    "6x192": [
        "shakespeare-fast",
        *("model.n_layer=6", "model.n_embd=192", "model.n_head=6", "model.n_hidden=512", "model.block_size=256"),
        *("training.steps=60", "training.eval_every=30", "training.sample_every=0"),
    ],
    "gpt2-124m": ["gpt2-124m", "data.source=tinyshakespeare", *GPT2, "training.eval_every=0"],
}
MEMORY, TIME = 0.15, 0.25  # what the planner promises


def glassformer(*words: str) -> dict:
    """What a command prints with --json."""
    done = subprocess.run(
        [sys.executable, "-m", "glassformer", *words, "--json"], check=True, capture_output=True, text=True
    )
    return json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(CASES))
    names = parser.parse_args().names or list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"{unknown[0]} is not one of {', '.join(CASES)}")
    shown = {}
    for name in names:
        planned = glassformer("plan", *CASES[name])
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            glassformer("train", *CASES[name], "--quiet", "--out", str(run))
            summary = json.loads((run / "summary.json").read_text())
        rows = {
            what: {"predicted": predicted, "actual": actual, "ratio": round(ratio, 3)}
            for what, predicted, actual, ratio in against_actual(planned, summary)
        }
        kept = {
            "memory_within_15_percent": abs(rows["peak memory, MB"]["ratio"] - 1) <= MEMORY,
            "time_within_25_percent": abs(rows["seconds"]["ratio"] - 1) <= TIME,
        }
        shown[name] = {**rows, **kept}
        print(f"{name} done", file=sys.stderr)
    print(json.dumps(shown, indent=2))


if __name__ == "__main__":
    main()
