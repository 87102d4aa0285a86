"""Sentiment of film reviews: a logistic regression on TF-IDF counts, and runs of `sentiment`, on the same split.

    pip install scikit-learn
    python benchmarks/sentiment.py [RUN ...]        # prints JSON

The counts are what a Transformer has to beat: single words and pairs of words, weighed by how rare they are, no idea of
order beyond that. Regularisation is chosen on the validation split; the figures are of the test split.
"""

from __future__ import annotations

import argparse
import json
import time

import _one_line  # noqa: F401  (first: it reports what is missing)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from glassformer.data.examples import load_examples
from glassformer.evaluation.phonemes import wilson_interval
from glassformer.recipes import evaluate


def tf_idf() -> dict[str, object]:
    started = time.perf_counter()
    examples = load_examples("reviews", quiet=True)
    texts = {split: [e.source for e in rows] for split, rows in examples.items()}
    labels = {split: [e.target for e in rows] for split, rows in examples.items()}
    counts = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    x = {"train": counts.fit_transform(texts["train"])}
    x |= {split: counts.transform(texts[split]) for split in ("validation", "test")}
    fitted = [LogisticRegression(C=c, max_iter=200).fit(x["train"], labels["train"]) for c in (1.0, 3.0, 10.0, 30.0)]
    best = max(fitted, key=lambda model: model.score(x["validation"], labels["validation"]))
    accuracy = float(best.score(x["test"], labels["test"]))
    n = len(texts["test"])
    return {
        "model": f"TF-IDF of words and pairs, logistic regression, C={best.C:g}",
        "features": x["train"].shape[1],
        "accuracy": accuracy,
        "interval": wilson_interval(round(accuracy * n), n),
        "n": n,
        "seconds": round(time.perf_counter() - started, 1),
    }


def run_of(path: str) -> dict[str, object]:
    estimate = evaluate(path, split="test")
    hits = round((estimate.accuracy or 0.0) * estimate.n)
    return {
        "model": path,
        "accuracy": estimate.accuracy,
        "interval": wilson_interval(hits, estimate.n),
        "n": estimate.n,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="*", help="run folders of `glassformer train sentiment`")
    runs = parser.parse_args().runs
    print(json.dumps([tf_idf(), *map(run_of, runs)], indent=2))


if __name__ == "__main__":
    main()
