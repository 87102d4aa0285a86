"""Fit the curve that `glassformer plan` predicts losses with, from our own runs on Tiny Shakespeare's characters.

    python benchmarks/fit_loss_curve.py             # fit again from the runs kept in recipes/loss_curve.json
    python benchmarks/fit_loss_curve.py --add runs/a runs/b    # and with finished runs of yours
    python benchmarks/fit_loss_curve.py --run       # train all of them anew first (an hour or more on one thread)

Writes src/glassformer/recipes/loss_curve.json and prints JSON: the coefficients and how far each run lies from a curve
fitted to the others. Every point is a whole run with its own way down to a small learning rate (a loss on the way would
be that of a rate still high, Hoffmann et al. 2022, sect. 3.2), in fp32, seeds 1337 on, on the whole validation split.
The form stands in `glassformer.recipes.loss_curve`. Needs scipy.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from scipy.optimize import least_squares

from glassformer.recipes.loss_curve import FILE, KEYS, effective_tokens, loss_at

COMMON = ["eval_every=0", "sample_every=0", "checkpoint_every=0", "precision=fp32", "compile=off"]
MUON = ["init=unit", "optimizer=muon", "matrix_learning_rate=0.02", "learning_rate=0.015", "momentum=0.95", "beta2=0.9"]
MUON += ["weight_decay=0", "grad_clip=0", "schedule=linear", "final_lr_fraction=0", "warmup_steps=0"]
ADAMW = ["optimizer=adamw", "learning_rate=1e-3", "beta2=0.99", "schedule=cosine", "warmup_steps=50"]
MODERN = ["family=modern", "rotary_base=30", "tied_head=false", "head_width=32"]
CLASSIC = ["family=classic", "bias=false", "activation=gelu"]
SHAPES = {"muon": (MODERN, MUON), "adamw": (CLASSIC, ADAMW)}
RUNS = [  # optimizer, layers, width, heads, context, sequences a step, steps
    ("muon", 1, 64, 2, 64, 16, 100),
    ("muon", 1, 64, 2, 64, 16, 300),
    ("muon", 1, 64, 2, 64, 16, 1000),
    ("muon", 2, 96, 4, 64, 16, 100),
    ("muon", 2, 96, 4, 64, 16, 300),
    ("muon", 2, 96, 4, 64, 16, 800),
    ("muon", 3, 128, 4, 64, 16, 100),
    ("muon", 3, 128, 4, 64, 16, 300),
    ("muon", 3, 128, 4, 64, 16, 1000),
    ("muon", 4, 192, 6, 64, 16, 150),
    ("muon", 4, 192, 6, 64, 16, 500),
    ("muon", 2, 96, 4, 16, 64, 500),
    ("muon", 2, 96, 4, 128, 8, 500),
    ("muon", 2, 96, 4, 256, 4, 500),
    ("adamw", 2, 64, 2, 64, 16, 300),
    ("adamw", 2, 64, 2, 64, 16, 1500),
    ("adamw", 4, 128, 4, 64, 16, 150),
    ("adamw", 4, 128, 4, 64, 16, 500),
    ("muon", 2, 96, 4, 64, 16, 2000),
    ("adamw", 4, 192, 6, 64, 16, 400),
    ("adamw", 4, 128, 4, 64, 16, 1500),
]


TRAIN_TOKENS = 1_003_854  # characters of Tiny Shakespeare to train on
START = [1.0, 20.0, 0.35, 0.4, 2.0, 100.0, 200.0]
# so few runs cannot tell the exponents from one another: they are held near those of the literature, a fifth either way
HELD = {2: 0.35, 3: 0.37}


def fit(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Coefficients through all runs, and through all but each one (the jackknife), by least squares on the logarithms
    of the losses."""
    runs = [{**run, "tokens": effective_tokens(run["tokens"], TRAIN_TOKENS)} for run in runs]
    best = solve(runs, START)
    each = [solve([other for other in runs if other is not run], best) for run in runs]
    off = [math.log(loss_at(theta, run) / run["loss"]) * run["loss"] for theta, run in zip(each, runs, strict=True)]
    return {
        "coefficients": dict(zip(KEYS, (round(x, 6) for x in best), strict=True)),
        "scatter": round(math.sqrt(sum(x * x for x in off) / len(off)), 4),
        "n": len(runs),
        "largest": max(run["parameters"] for run in runs),
        "longest": max(run["tokens"] for run in runs),
        "jackknife": [[round(x, 6) for x in theta] for theta in each],
    }


def solve(runs: list[dict[str, Any]], start: list[float]) -> list[float]:
    """Levenberg-Marquardt in the logarithms of the coefficients, all of which are positive."""

    def off(x: np.ndarray) -> list[float]:
        misses = [math.log(loss_at(np.exp(x), run) / run["loss"]) / 0.01 for run in runs]
        return misses + [(x[i] - math.log(value)) / 0.2 for i, value in HELD.items()]

    return [float(value) for value in np.exp(least_squares(off, np.log(start), method="lm").x)]


def leave_one_out(runs: list[dict[str, Any]], jackknife: list[list[float]]) -> list[dict[str, Any]]:
    """Each run, and the prediction of the curve through the others."""
    flat = [{**run, "tokens": effective_tokens(run["tokens"], TRAIN_TOKENS)} for run in runs]
    return [{**run, "predicted": round(loss_at(t, f), 4)} for run, f, t in zip(runs, flat, jackknife, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="train the runs listed here anew")
    parser.add_argument("--add", nargs="*", default=[], metavar="RUN", help="finished run folders to fit as well")
    args = parser.parse_args()
    known = json.loads(FILE.read_text())["runs"] if FILE.exists() else []
    runs = [train(i, *run) for i, run in enumerate(RUNS)] if args.run else known
    runs += [point(Path(folder)) for folder in args.add]
    curve = fit(runs)
    FILE.write_text(json.dumps({**curve, "runs": runs}, indent=1) + "\n")
    print(json.dumps({**curve, "left_out": leave_one_out(runs, curve["jackknife"])}, indent=2))


def train(i: int, optimizer: str, L: int, C: int, H: int, T: int, B: int, steps: int) -> dict[str, Any]:
    """One run in a process of its own."""
    shape = [f"n_layer={L}", f"n_embd={C}", f"n_head={H}", f"block_size={T}"]
    model, training = SHAPES[optimizer]
    hidden = [f"n_hidden={2 * C}"] if optimizer == "muon" else []
    settings = [f"model.{s}" for s in (*model, *shape, *hidden)]
    settings += [f"training.{s}" for s in (*training, *COMMON, f"batch_size={B}", f"steps={steps}")]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "glassformer", "train", *settings, "tokenizer.kind=characters"]
        command += ["data.source=tinyshakespeare", "--quiet", "--seed", str(1337 + i), "--out", f"{folder}/run"]
        subprocess.run(command, check=True, capture_output=True, env=os.environ)
        return point(Path(folder) / "run")


def point(run: Path) -> dict[str, Any]:
    """What a finished run says to the curve.

    Raises:
        SystemExit: it is of another text or tokenizer.
    """
    from glassformer.recipes.recipe_file import read_recipe_text
    from glassformer.training import RunFolder

    recipe, rest = read_recipe_text(RunFolder.open(run))
    if (recipe.data.source, recipe.tokenizer.kind) != ("tinyshakespeare", "characters"):
        raise SystemExit(f"{run} is not of Tiny Shakespeare's characters, which this curve is about")
    summary = json.loads((run / "summary.json").read_text())
    shown = {"optimizer": recipe.training.optimizer, "parameters": summary["parameters"], "tokens": summary["tokens"]}
    return {**shown, "block_size": rest["derived"]["model"]["block_size"], "loss": round(summary["val_loss"], 4)}


if __name__ == "__main__":
    main()
