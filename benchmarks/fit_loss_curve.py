"""Fit the curve that `glassformer plan` predicts losses with, from our own runs on Tiny Shakespeare's characters.

    python benchmarks/fit_loss_curve.py             # fit again from the runs kept in recipes/loss_curve.json
    python benchmarks/fit_loss_curve.py --add runs/a runs/b    # and with finished runs of yours
    python benchmarks/fit_loss_curve.py --run       # train all of them anew first (an hour or more on one thread)

Writes src/glassformer/recipes/loss_curve.json and prints JSON: the coefficients and how far each run lies from a curve
fitted to the others. Every point is a whole run with its own way down to a small learning rate (a loss on the way would
be that of a rate still high, Hoffmann et al. 2022, sect. 3.2), in fp32, seeds 1337 on, on the whole validation split.
The form and how it is fitted stand in `glassformer.recipes.loss_curve`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)

from glassformer.recipes.loss_curve import FILE, fit, leave_one_out

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
    print(json.dumps({**curve, "left_out": leave_one_out(runs)}, indent=2))


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
    told = {"optimizer": recipe.training.optimizer, "parameters": summary["parameters"], "tokens": summary["tokens"]}
    return {**told, "block_size": rest["derived"]["model"]["block_size"], "loss": round(summary["val_loss"], 4)}


if __name__ == "__main__":
    main()
