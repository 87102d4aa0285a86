"""Where in the cell a protein is found, of 13 places: counts of short pieces of it, beside a trained encoder.

    python benchmarks/proteins.py [RUN]

largest        always the most frequent place
naive-bayes    counts of 1, 2 and 3 amino acids in a row (scikit-learn's MultinomialNB)
logistic       the same as tf-idf, and those of the first 50 amino acids, where signals stand, as features of their own
RUN            a run of task.kind=classify on `protein-locations`

Accuracy and macro F1 (the mean over places, however rare) on the 2,631 test proteins, with 95 % intervals: of Wilson,
and of 1,000 bootstrap samples. The strength of what is tuned is chosen by the validation proteins. Prints JSON lines.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import _one_line  # noqa: F401  (first: it reports what is missing)
import numpy as np
from scipy.sparse import hstack
from scipy.stats import binomtest
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.naive_bayes import MultinomialNB

import glassformer as gf
from glassformer.data.examples import load_examples
from glassformer.generation import classify

FIRST = 50
PIECES: dict[str, Any] = {"analyzer": "char", "lowercase": False}


def report(side: str, predicted: list[str], truth: list[str], began: float) -> None:
    right = sum(a == b for a, b in zip(predicted, truth, strict=True))
    ends = binomtest(right, len(truth)).proportion_ci(method="wilson")
    random, y, z = np.random.default_rng(0), np.array(truth), np.array(predicted)
    drawn = (random.integers(len(y), size=len(y)) for _ in range(1000))
    f1 = [f1_score(y[rows], z[rows], average="macro", labels=sorted(set(truth)), zero_division=0) for rows in drawn]
    print(json.dumps({
        "side": side,
        "accuracy": [round(100 * value, 1) for value in (right / len(truth), ends.low, ends.high)],
        "macro_f1": [round(100 * v, 1) for v in (f1_score(y, z, average="macro", zero_division=0),
                                                 *np.quantile(f1, [0.025, 0.975]))],
        "seconds": round(time.time() - began),
    }), flush=True)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", nargs="?", metavar="RUN")
    given = parser.parse_args()
    examples = load_examples("protein-locations", quiet=True)
    texts = {split: [row.source for row in rows] for split, rows in examples.items()}
    places = {split: [row.target for row in rows] for split, rows in examples.items()}
    truth = places["test"]
    report("largest", [max(set(places["train"]), key=places["train"].count)] * len(truth), truth, time.time())

    if given.run:
        began = time.time()
        bundle = gf.load(given.run)
        found = classify(bundle.model, bundle.processor, texts["test"]).argmax(dim=1).tolist()
        report(given.run, [bundle.labels[number] for number in found], truth, began)

    began = time.time()
    counts = CountVectorizer(ngram_range=(1, 3), **PIECES).fit(texts["train"])
    x = {split: counts.transform(rows) for split, rows in texts.items()}
    tried = [MultinomialNB(alpha=alpha, fit_prior=prior).fit(x["train"], places["train"])
             for alpha in (0.01, 1.0, 100.0) for prior in (True, False)]  # fmt: skip
    best = max(tried, key=lambda each: each.score(x["validation"], places["validation"]))
    report("naive-bayes", best.predict(x["test"]).tolist(), truth, began)

    began = time.time()
    whole = TfidfVectorizer(ngram_range=(1, 3), sublinear_tf=True, **PIECES).fit(texts["train"])
    start = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, **PIECES).fit(t[:FIRST] for t in texts["train"])
    x = {
        split: hstack([whole.transform(rows), start.transform([row[:FIRST] for row in rows])]).tocsr()
        for split, rows in texts.items()
    }
    fitted = [LogisticRegression(C=C, max_iter=300).fit(x["train"], places["train"]) for C in (1.0, 10.0)]
    best = max(fitted, key=lambda each: each.score(x["validation"], places["validation"]))
    report("logistic", best.predict(x["test"]).tolist(), truth, began)


if __name__ == "__main__":
    main()
