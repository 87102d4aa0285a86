"""How good word vectors are, compared with people's judgements: similarity by rank correlation, analogies by accuracy.

Each figure has its coverage: of how many questions all words are in the vocabulary. The others count neither for nor
against.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import DataError
from glassformer.history.word_tests import Likeness, Question, WordTests

AT_ONCE = 512  # questions that are held against the whole vocabulary together


@dataclass(frozen=True)
class LikenessScore:
    """rho: Spearman's, of cosines and people's scores; None for fewer than two pairs, or where all are equal. n: pairs
    whose words are known, of n_all."""

    rho: float | None
    n: int
    n_all: int


@dataclass(frozen=True)
class AnalogyScore:
    """right: questions that the nearest word answers, the three given words left out, as is usual. right_among_all:
    with the three among those that may be nearest. n: questions whose words are all known, of n_all."""

    right: int
    right_among_all: int
    n: int
    n_all: int

    @property
    def share(self) -> float | None:
        return self.right / self.n if self.n else None

    @property
    def share_among_all(self) -> float | None:
        return self.right_among_all / self.n if self.n else None

    def __add__(self, other: AnalogyScore) -> AnalogyScore:
        return AnalogyScore(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))


@dataclass(frozen=True)
class WordVectorScores:
    """likeness: by collection. sections: of the analogies, each by itself."""

    likeness: dict[str, LikenessScore]
    sections: dict[str, AnalogyScore]

    @property
    def analogies(self) -> dict[str, AnalogyScore]:
        """All, those about meaning (capitals, currencies, families), and those about forms (plurals, tenses)."""
        nothing = AnalogyScore(0, 0, 0, 0)
        forms = sum((s for name, s in self.sections.items() if name.startswith("gram")), nothing)
        meaning = sum((s for name, s in self.sections.items() if not name.startswith("gram")), nothing)
        return {"all": meaning + forms, "meaning": meaning, "form": forms}

    def to_dict(self) -> dict[str, Any]:
        return {
            "likeness": {name: asdict(score) for name, score in self.likeness.items()},
            "analogies": {name: asdict(score) for name, score in (self.analogies | self.sections).items()},
        }

    def lines(self) -> list[str]:
        """The scores as lines to read."""
        lines = []
        for name, like in self.likeness.items():
            rho = "-" if like.rho is None else f"{like.rho:.3f}"
            lines.append(f"{name:<14} {rho}  (Spearman's rho; {like.n} of {like.n_all} pairs known)")
        for name, score in self.analogies.items():
            if score.share is not None and score.share_among_all is not None:
                shares = f"{100 * score.share:.1f} % right, {100 * score.share_among_all:.1f} % with the question's own"
                lines.append(f"analogies, {name:<8} {shares} words allowed  ({score.n:,} of {score.n_all:,} known)")
        return lines


def score_word_vectors(words: Sequence[str], table_NC: Tensor, tests: WordTests) -> WordVectorScores:
    """Score a table of vectors, one row a word. Case does not matter: `Athens` asks for `athens`, and of words that
    differ in nothing else the first counts.

    Raises:
        DataError: not one row for each word.
    """
    if len(words) != len(table_NC):
        raise DataError(f"{len(words)} words and {len(table_NC)} vectors; give one of each a word")
    rows: dict[str, int] = {}
    for row, word in enumerate(words):
        rows.setdefault(word.strip().lower(), row)
    unit_NC = table_NC / table_NC.norm(dim=1, keepdim=True).clamp_min(1e-12)
    likeness = {name: _likeness_score(pairs, rows, unit_NC) for name, pairs in tests.likeness.items()}
    sections = {name: _analogy_score(questions, rows, unit_NC) for name, questions in tests.analogies.items()}
    return WordVectorScores(likeness, sections)


def _likeness_score(pairs: Sequence[Likeness], rows: dict[str, int], unit_NC: Tensor) -> LikenessScore:
    from scipy.stats import ConstantInputWarning, spearmanr

    known = [(rows[a.lower()], rows[b.lower()], s) for a, b, s in pairs if a.lower() in rows and b.lower() in rows]
    if len(known) < 2:
        return LikenessScore(None, len(known), len(pairs))
    first, second, ratings = zip(*known, strict=True)
    cosines = (unit_NC[list(first)] * unit_NC[list(second)]).sum(dim=1)  # (n, C) -> (n,)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConstantInputWarning)
        rho = float(spearmanr(cosines.double().numpy(), ratings).statistic)
    return LikenessScore(None if math.isnan(rho) else rho, len(known), len(pairs))


def _analogy_score(questions: Sequence[Question], rows: dict[str, int], unit_NC: Tensor) -> AnalogyScore:
    """`b - a + c` for "a is to b as c is to d", and whether d is nearest."""
    asked = [[rows[word.lower()] for word in q] for q in questions if all(word.lower() in rows for word in q)]
    right = right_among_all = 0
    for some in torch.tensor(asked, dtype=torch.int64).view(-1, 4).split(AT_ONCE):
        a, b, c, d = some.unbind(1)
        cosines_QN = (unit_NC[b] - unit_NC[a] + unit_NC[c]) @ unit_NC.t()  # (Q, C) @ (C, N) -> (Q, N)
        right_among_all += int((cosines_QN.argmax(dim=1) == d).sum())
        cosines_QN.scatter_(1, some[:, :3], -torch.inf)
        right += int((cosines_QN.argmax(dim=1) == d).sum())
    return AnalogyScore(right, right_among_all, len(asked), len(questions))
