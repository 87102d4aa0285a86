"""Pronunciations against a dictionary's: how many words are wrong, and how many of their sounds.

word       read
answer     R EH T           the nearest reference is R EH D: 1 of 3 sounds is wrong, and so is the word
known      R IY D | R EH D
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from glassformer.errors import DataError, MissingExtraError
from glassformer.evaluation.estimate import finite, standard_error, wilson_interval
from glassformer.renamed import old_arguments


@dataclass(frozen=True)
class PronunciationErrors:
    """Rates of errors, as shares.

    word_error_rate: words whose answer is no pronunciation in the dictionary. word_interval: both ends of its 95 %
    interval. phoneme_error_rate: edits that turn the answers into the nearest references, divided by the sounds of
    these. phoneme_interval: half the width of its 95 % interval, infinite for a single word. n: words.
    """

    word_error_rate: float
    word_interval: tuple[float, float]
    phoneme_error_rate: float
    phoneme_interval: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "phoneme_interval": finite(self.phoneme_interval)}


@old_arguments(said="answers")
def pronunciation_errors(answers: Sequence[str], references: Sequence[Sequence[str]]) -> PronunciationErrors:
    """Word and phoneme error rate, as in Yao and Zweig 2015, https://arxiv.org/abs/1506.00196, section 4: a word with
    several references is held against the nearest one.

    Args:
        answers: of each word its sounds, separated by spaces. references: of each word all its pronunciations.

    Raises:
        DataError: there are no words, or one without a reference.
        MissingExtraError: rapidfuzz is not installed.
    """
    try:
        from rapidfuzz.distance import Levenshtein
    except ImportError:
        raise MissingExtraError("measuring phoneme errors", "translate") from None
    if len(answers) != len(references):
        raise DataError(f"{len(answers)} pronunciations and references of {len(references)} words; give both for each")
    if not answers:
        raise DataError("no pronunciations to score; give at least one")
    edits, sounds = [], []
    for number, (ours, known) in enumerate(zip(answers, references, strict=True)):
        ways = [way.split() for way in known if way.split()]
        if not ways:
            raise DataError(f"word {number} has no reference; leave it out")
        distances = [Levenshtein.distance(ours.split(), way) for way in ways]
        nearest = distances.index(min(distances))
        edits.append(distances[nearest])
        sounds.append(len(ways[nearest]))
    wrong, n = sum(distance > 0 for distance in edits), len(answers)
    spread = standard_error(torch.tensor(edits, dtype=torch.float64), torch.tensor(sounds))
    return PronunciationErrors(wrong / n, wilson_interval(wrong, n), sum(edits) / sum(sounds), 1.96 * spread, n)
