"""Tables of scikit-learn as sets of cells, beside gradient boosting and a linear model, over several random splits.

    python benchmarks/tables.py --splits 5

Each split trains on 70 % of the rows, chooses by 10 % and tests on 20 %; all methods learn from the same rows. What is
printed is the mean over splits with its 95 % interval (Student's t), and that of the paired difference. HistGradient-
Boosting and the linear model have scikit-learn's defaults; they do not use the rows that validate.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from scipy.stats import t as student
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from glassformer import recipes
from glassformer.data.records import load_records

TABLES = {"breast-cancer": "classify_sets", "wine": "classify_sets", "diabetes": "regress_sets"}
SETTINGS = [
    "model.kind=encoder", "model.n_layer=2", "model.n_head=4", "model.n_embd=48", "training.steps=400",
    "training.batch_size=32", "training.optimizer=adamw", "training.learning_rate=1e-3", "training.schedule=linear",
    "training.final_lr_fraction=0", "training.warmup_steps=20", "training.dropout=0.1", "training.weight_decay=0.1",
    "training.eval_every=50", "training.sample_every=0", "training.checkpoint_every=400", "task.drop=0.2",
]  # fmt: skip


def ours(table: str, split: int, folder: Path) -> float:
    """Accuracy, or the root of the mean squared error, on the test rows."""
    words = [f"task.kind={TABLES[table]}", f"task.shuffle={split}", f"training.seed={split}", *SETTINGS]
    run = recipes.train(None, words, data=table, out=folder / f"{table}-{split}")
    model, task = recipes.opening.open_run(run.path)
    metrics = task.evaluate(model, "test")
    return metrics["accuracy" if TABLES[table] == "classify_sets" else "rmse"].value


def theirs(table: str, split: int) -> dict[str, float]:
    """The same of scikit-learn's methods."""
    records = load_records(table, shuffle=split)
    names = list(records["train"][0].values)
    x, y = {}, {}
    for part, rows in records.items():
        x[part] = np.array([[float(row.values[name]) for name in names] for row in rows])
        y[part] = [row.target for row in rows]
    if TABLES[table] == "classify_sets":
        methods = {
            "boosting": HistGradientBoostingClassifier(random_state=split),
            "linear": make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)),
        }
        return {name: float(m.fit(x["train"], y["train"]).score(x["test"], y["test"])) for name, m in methods.items()}
    numbers = {part: np.array(list(map(float, rows))) for part, rows in y.items()}
    methods = {
        "boosting": HistGradientBoostingRegressor(random_state=split),
        "linear": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-2, 3, 20))),
    }
    found = {}
    for name, method in methods.items():
        errors = method.fit(x["train"], numbers["train"]).predict(x["test"]) - numbers["test"]
        found[name] = float(np.sqrt((errors**2).mean()))
    return found


def mean(values: list[float]) -> str:
    """The mean with its 95 % interval."""
    n = len(values)
    interval = student.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n) if n > 1 else float("inf")
    return f"{np.mean(values):8.4f} ± {interval:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--tables", nargs="*", default=list(TABLES), choices=list(TABLES))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for table in given.tables:
            began, rows = time.time(), list[dict[str, float]]()
            for split in range(1, given.splits + 1):
                rows.append({"set": ours(table, split, Path(folder)), **theirs(table, split)})
                print(json.dumps({"table": table, "split": split, **rows[-1]}), flush=True)
            what = "accuracy" if TABLES[table] == "classify_sets" else "rmse"
            print(f"{table}, {what}, {given.splits} splits, {time.time() - began:.0f} s")
            for name in rows[0]:
                paired = mean([row["set"] - row[name] for row in rows]) if name != "set" else ""
                print(f"  {name:<10}{mean([row[name] for row in rows])}   {'set minus it ' + paired if paired else ''}")


if __name__ == "__main__":
    main()
