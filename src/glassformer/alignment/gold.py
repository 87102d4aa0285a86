"""The hidden gold classifier: is a review positive? Words and pairs of words, weighted by TF-IDF, and a logistic
regression. It stands for the people whose judgement a reward model learns, and unlike them it can be asked at any time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.errors import DataError, MissingExtraError, RunError
from glassformer.files import write_json

WORDS = 40
"""Words of the pieces on which the accuracy is measured as well: about as many as a model writes."""
TERMS = 100_000
"""Words and pairs of words that are weighed, at most."""


@dataclass
class Gold:
    """The classifier as plain numbers. Called as a reward function it gives the log-odds of "positive" for each prompt
    with its completion.

    terms: words and pairs of words. idf, weights: of each. accuracy, accuracy_of_pieces: on reviews that were held out,
    whole and their first `WORDS` words; n of them.
    """

    terms: list[str]
    idf: list[float]
    weights: list[float]
    bias: float
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def fit(cls, train: Sequence[tuple[str, bool]], held_out: Sequence[tuple[str, bool]]) -> Gold:
        """Learn from (text, whether it is positive).

        Raises:
            DataError: all reviews have one label.
        """
        if len({label for _, label in train}) < 2:
            raise DataError("the reviews have one label, and the gold classifier tells two apart; give both")
        vectorizer_class, regression = _scikit_learn()
        vectorizer = vectorizer_class(ngram_range=(1, 2), min_df=2, max_features=TERMS, sublinear_tf=True)
        model = regression(C=4.0, max_iter=200)
        model.fit(vectorizer.fit_transform([text for text, _ in train]), [label for _, label in train])
        gold = cls(
            vectorizer.get_feature_names_out().tolist(),
            vectorizer.idf_.tolist(),
            model.coef_[0].tolist(),
            float(model.intercept_[0]),
        )
        labels = np.array([label for _, label in held_out])
        whole, pieces = ([text for text, _ in held_out], [" ".join(text.split()[:WORDS]) for text, _ in held_out])
        gold.facts = {
            "accuracy": float(((gold.logits(whole) > 0) == labels).mean()),
            "accuracy_of_pieces": float(((gold.logits(pieces) > 0) == labels).mean()),
            "n": len(held_out),
        }
        return gold

    @cached_property
    def _vectorizer(self) -> Any:
        vectorizer_class, _ = _scikit_learn()
        made = vectorizer_class(ngram_range=(1, 2), sublinear_tf=True, vocabulary=self.terms)
        made.idf_ = np.array(self.idf)
        return made

    def logits(self, texts: Sequence[str]) -> np.ndarray:
        """Log-odds of "positive" of each text, (N,)."""
        return np.asarray(self._vectorizer.transform(texts) @ np.array(self.weights) + self.bias)

    def __call__(self, prompts: Sequence[str], completions: Sequence[str], **columns: Any) -> list[float]:
        texts = [prompt + completion for prompt, completion in zip(prompts, completions, strict=True)]
        return self.logits(texts).tolist()  # type: ignore[no-any-return]

    def save(self, path: Path) -> None:
        """Write it as JSON."""
        write_json(path, asdict(self))

    @classmethod
    def load(cls, path: Path) -> Gold:
        """The inverse of `save`.

        Raises:
            RunError: it cannot be read.
        """
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise RunError(f"{path}: no gold classifier can be read ({error}); delete it to train it again") from None


def _scikit_learn() -> tuple[Any, Any]:
    try:
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
    except ImportError:
        raise MissingExtraError("the gold classifier", "align") from None
    return TfidfVectorizer, LogisticRegression
