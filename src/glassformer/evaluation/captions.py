"""How many captions are right, beside what needs no Transformer: one caption for all, that of the nearest image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from glassformer.evaluation.estimate import Share
from glassformer.evaluation.speech import plain_words

WHOLE = "caption"
AT_ONCE = 256  # images that are compared with all others together


@dataclass(frozen=True)
class CaptionScores:
    """n: captions. right: by method ("model", baselines) and by what a caption says ("colour", ...; `WHOLE` is all of
    it), the share that is right."""

    n: int
    right: dict[str, dict[str, Share]]

    def to_dict(self) -> dict[str, Any]:
        rows = self.right.items()
        return {"n": self.n, "right": {by: {what: s._asdict() for what, s in row.items()} for by, row in rows}}

    def lines(self) -> list[str]:
        """A line for each method and what it got right."""
        width = max(map(len, self.right))
        return [
            f"{by:<{width}}  {what:<8} right {share}" for by, row in self.right.items() for what, share in row.items()
        ]


def caption_scores(
    written: Mapping[str, Sequence[str]],
    references: Sequence[str],
    described: Callable[[str], Mapping[str, str]] | None = None,
) -> CaptionScores:
    """The scores of captions that several methods wrote for the same images.

    Args:
        described: what a caption says, by name; the whole is right where all of it is. Without it captions are compared
            as words, in small letters and without punctuation.

    >>> said = lambda text: dict(zip(("colour", "digit"), text.split()))
    >>> scores = caption_scores({"model": ["red two", "red one"]}, ["red two", "blue one"], said)
    >>> {what: share.value for what, share in scores.right["model"].items()}
    {'caption': 0.5, 'colour': 0.5, 'digit': 1.0}
    """
    if described is None:
        rows = {
            by: {WHOLE: Share.of([plain_words(a) == plain_words(b) for a, b in zip(texts, references, strict=True)])}
            for by, texts in written.items()
        }
        return CaptionScores(len(references), rows)
    wanted = [described(text) for text in references]
    names = list(dict.fromkeys(name for each in wanted for name in each))
    found = {}
    for by, texts in written.items():
        said = [described(text) for text in texts]
        whole = {WHOLE: Share.of([dict(a) == dict(b) for a, b in zip(said, wanted, strict=True)])}
        parts = {
            name: Share.of([a.get(name) == b[name] for a, b in zip(said, wanted, strict=True) if name in b])
            for name in names
        }
        found[by] = {**whole, **parts}
    return CaptionScores(len(references), found)


def baselines(
    train: Sequence[np.ndarray], captions: Sequence[str], asked: Sequence[np.ndarray]
) -> dict[str, list[str]]:
    """Captions without a Transformer, by method: the most frequent one, and that of the nearest training image (the
    smallest distance of pixels)."""
    (most, _), *_ = Counter(captions).most_common(1)
    known_ND = np.stack([pixels.ravel() for pixels in train]).astype(np.float32)
    squares_N, nearest = np.square(known_ND).sum(axis=1), list[int]()
    for start in range(0, len(asked), AT_ONCE):
        some_BD = np.stack([pixels.ravel() for pixels in asked[start : start + AT_ONCE]]).astype(np.float32)
        nearest += (squares_N - 2 * some_BD @ known_ND.T).argmin(axis=1).tolist()
    return {"most frequent": [most] * len(asked), "nearest image": [captions[i] for i in nearest]}
