"""The solubility of molecules from graphs, sets of atoms, SMILES, fingerprints and descriptors, on the same splits.

    python benchmarks/molecules.py --out results.jsonl [--splits 5] [--methods graph full ...]

Each split keeps the molecules of one scaffold (rings and what joins them) together: about 60 % train, 10 % validate,
20 % and more test. Every method has three settings; the one with the smallest error on the validation molecules of
split 0 is taken for splits 1, 2, ..., which alone are reported: the root of the mean squared error and the mean
absolute error on the test molecules in log10 (mol / l), the mean over splits with its 95 % interval (Student's t), and
the paired difference to the first method.

    graph              atoms; every second layer along bonds alone, the others among all atoms
    bonds              atoms; every layer along bonds alone
    full               the same atoms, every layer among all of them, so that bonds are seen in an atom's features alone
    smiles             the SMILES, its tokens the atoms and marks, read by an encoder with rotary positions
    fingerprint-ridge  Morgan fingerprints (radius 2, counts in 2,048 places), ridge regression
    fingerprint-forest the same, random forest
    descriptors        RDKit's 217 descriptors (logP, polar surface, ...), histogram gradient boosting

Results are written to --out as they come; what stands there is not made again. Networks choose their step by the
validation molecules, which the other methods do not use.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from rdkit import Chem, rdBase
from rdkit.Chem import Descriptors, rdFingerprintGenerator
from scipy.stats import t as student
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestRegressor
from sklearn.linear_model import Ridge

import glassformer as gf
from glassformer import recipes
from glassformer.data.examples import Example, load_examples
from glassformer.data.molecules import by_scaffold
from glassformer.generation import predict
from glassformer.threads import set_threads

SHAPE = ["model.kind=encoder", "model.n_layer=3", "model.n_head=4", "model.n_embd=64",
         "training.batch_size=32", "training.schedule=linear", "training.final_lr_fraction=0",
         "training.optimizer=adamw", "training.warmup_steps=50", "training.weight_decay=0.1", "training.eval_every=100",
         "training.sample_every=0"]  # fmt: skip
ATOMS = ["task.kind=regress_molecules", "model.pooling=sum"]
TEXT = ["task.kind=regress", "tokenizer.kind=smiles", "model.family=modern", "model.pooling=mean",
        "model.block_size=128"]  # fmt: skip
NETWORKS = {
    "graph": [*ATOMS, "model.patterns=graph(1),full"],
    "bonds": [*ATOMS, "model.patterns=graph(1)"],
    "full": [*ATOMS, "model.patterns=full"],
    "smiles": TEXT,
}
NETWORK_SETTINGS = [
    {"training.learning_rate": 3e-3, "training.dropout": 0.0},
    {"training.learning_rate": 6e-3, "training.dropout": 0.0},
    {"training.learning_rate": 3e-3, "training.dropout": 0.1},
]
Splits = dict[str, list[Example]]
Scores = dict[str, dict[str, float]]


@cache
def fingerprint(smiles: str) -> np.ndarray:
    """Counts of the surroundings of atoms, up to two bonds far: (2048,)."""
    generator = rdFingerprintGenerator.GetMorganGenerator(radius=2, fpSize=2048)
    return generator.GetCountFingerprintAsNumPy(Chem.MolFromSmiles(smiles)).astype(float)


@cache
def descriptors(smiles: str) -> np.ndarray:
    """RDKit's list of descriptors; what is not finite is missing: (217,)."""
    with rdBase.BlockLogs():
        values = np.array(list(Descriptors.CalcMolDescriptors(Chem.MolFromSmiles(smiles)).values()))
    return np.where(np.isfinite(values), np.clip(values, -1e6, 1e6), np.nan)


OTHERS: dict[str, tuple[Callable[[str], np.ndarray], Callable[..., Any], list[dict[str, Any]]]] = {
    "fingerprint-ridge": (fingerprint, Ridge, [{"alpha": alpha} for alpha in (10, 30, 100)]),
    "fingerprint-forest": (
        fingerprint,
        lambda **settings: RandomForestRegressor(n_estimators=300, random_state=0, **settings),
        [{"max_features": part} for part in (0.05, 0.2, 1.0)],
    ),
    "descriptors": (
        descriptors,
        lambda **settings: HistGradientBoostingRegressor(random_state=0, **settings),
        [{"learning_rate": 0.1}, {"learning_rate": 0.05, "max_iter": 300}, {"learning_rate": 0.1, "max_leaf_nodes": 8}],
    ),
}


def scores(predicted: np.ndarray, rows: list[Example]) -> dict[str, float]:
    errors = predicted - np.array([float(row.target) for row in rows])
    return {"rmse": float(np.sqrt((errors**2).mean())), "mae": float(np.abs(errors).mean())}


def by_network(method: str, settings: dict[str, Any], splits: Splits, seed: int, steps: int, folder: Path) -> Scores:
    """Scores of the best step by the validation molecules."""
    data = folder / "molecules.tsv"
    lines = [f"{row.source}\t{row.target}\t{split}\n" for split, rows in splits.items() for row in rows]
    data.write_text("text\tlabel\tsplit\n" + "".join(lines))
    words = [*SHAPE, *NETWORKS[method], *(f"{key}={value}" for key, value in settings.items())]
    words += [f"training.steps={steps}", f"training.checkpoint_every={steps}", f"training.seed={seed}"]
    run = recipes.train(None, words, data=str(data), out=folder / "run")
    bundle = gf.load(run.path)
    found = {}
    for split in ("validation", "test"):
        smiles = [row.source for row in splits[split]]
        found[split] = scores(predict(bundle.model, bundle.processor, smiles).numpy(), splits[split])
    return found


def by_other(method: str, settings: dict[str, Any], splits: Splits) -> Scores:
    features, make, _ = OTHERS[method]
    x = {split: np.stack([features(row.source) for row in rows]) for split, rows in splits.items()}
    fitted = make(**settings).fit(x["train"], [float(row.target) for row in splits["train"]])
    return {split: scores(fitted.predict(x[split]), splits[split]) for split in ("validation", "test")}


def mean(values: list[float]) -> str:
    """The mean with its 95 % interval."""
    n = len(values)
    interval = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else float("inf")
    return f"{np.mean(values):7.3f} ± {interval:.3f}"


class Results:
    """The lines of a file: one a method, setting and split."""

    def __init__(self, path: Path, steps: int):
        self.path, self.steps = path, steps
        lines = path.read_text().splitlines() if path.is_file() else []
        self.rows = [json.loads(line) for line in lines]

    def of(self, method: str, setting: int, split: int, splits: Splits) -> dict[str, Any]:
        """The scores, from the file or made now."""
        key = {"method": method, "setting": setting, "split": split, "steps": self.steps if method in NETWORKS else 0}
        if (row := next((row for row in self.rows if key.items() <= row.items()), None)) is not None:
            return row
        began = time.time()
        if method in NETWORKS:
            with tempfile.TemporaryDirectory() as folder:
                found = by_network(method, NETWORK_SETTINGS[setting], splits, split, self.steps, Path(folder))
        else:
            found = by_other(method, OTHERS[method][2][setting], splits)
        row = {**key, **found, "seconds": round(time.time() - began, 1)}
        self.rows.append(row)
        with open(self.path, "a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help="of the networks")
    known = [*NETWORKS, *OTHERS]
    parser.add_argument("--methods", nargs="*", default=known, choices=known)
    given = parser.parse_args()
    set_threads()
    molecules = [row for rows in load_examples("solubility", quiet=True).values() for row in rows]
    splits = [by_scaffold(molecules, number) for number in range(given.splits + 1)]
    results, tests = Results(given.out, given.steps), {}
    for method in given.methods:
        tried = [results.of(method, setting, 0, splits[0])["validation"]["rmse"] for setting in range(3)]
        best = int(np.argmin(tried))
        tests[method] = [results.of(method, best, n, splits[n])["test"] for n in range(1, given.splits + 1)]
    first = tests[given.methods[0]]
    print(f"{'method':<20}{'rmse':<18}{'mae':<18}rmse less {given.methods[0]}'s")
    for method, found in tests.items():
        paired = [a["rmse"] - b["rmse"] for a, b in zip(found, first, strict=True)]
        columns = [mean([each[name] for each in found]) for name in ("rmse", "mae")]
        print(f"{method:<20}{columns[0]:<18}{columns[1]:<18}{mean(paired) if method != given.methods[0] else ''}")


if __name__ == "__main__":
    main()
