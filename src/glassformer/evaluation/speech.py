"""How many words and characters of transcripts are wrong, as jiwer counts them.

WER = (substituted + missing + added words) / words of the references, of all sounds together; CER the same of
characters. Both sides are normalised first: how they are decides about several points, so that figures of two models
compare with one normaliser alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from glassformer.errors import DataError, MissingExtraError

DRAWS = 1000


@dataclass(frozen=True)
class Rate:
    """Errors / what the references hold, and the ends of its 95 % interval, by drawing the sounds anew."""

    rate: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{100 * self.rate:.2f} %  (95 %: {100 * self.low:.2f} to {100 * self.high:.2f})"


@dataclass(frozen=True)
class SpeechErrors:
    """words, characters: the rates. n: sounds with words. n_words: of their references."""

    words: Rate
    characters: Rate
    n: int
    n_words: int

    def to_dict(self) -> dict[str, Any]:
        return {
            "word_error_rate": asdict(self.words),
            "character_error_rate": asdict(self.characters),
            "n": self.n,
            "n_words": self.n_words,
        }

    def lines(self) -> list[str]:
        """A line for each rate."""
        return [
            f"wrong words    {self.words}, of {self.n_words:,} words in {self.n:,} sounds",
            f"wrong letters  {self.characters}",
        ]


def plain_words(text: str) -> str:
    """Small letters, digits and apostrophes; everything else parts words.

    >>> plain_words("Press 'one' -- it's FREE!")
    "press one it's free"
    """
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'"))
    return " ".join(words)


def speech_errors(
    transcripts: Sequence[str], references: Sequence[str], normalise: Callable[[str], str] = plain_words
) -> SpeechErrors:
    """The error rates of transcripts. A reference without words is left out.

    Raises:
        DataError: there is not one transcript for each reference, or no reference has words.
        MissingExtraError: jiwer is not installed.
    """
    try:
        import jiwer
    except ImportError:
        raise MissingExtraError("counting wrong words", "audio") from None
    if len(transcripts) != len(references):
        raise DataError(f"{len(transcripts)} transcripts and {len(references)} references; give one for each")
    counts = []
    for found, expected in zip(map(normalise, transcripts), map(normalise, references), strict=True):
        if not expected.strip():
            continue
        both = jiwer.process_words(expected, found), jiwer.process_characters(expected, found)
        counts.append(
            [
                n
                for o in both
                for n in (o.substitutions + o.deletions + o.insertions, o.substitutions + o.deletions + o.hits)
            ]
        )
    if not counts:
        raise DataError("no reference has words; give at least one that has")
    table_N4 = np.array(counts)
    drawn = np.random.default_rng(0).integers(0, len(table_N4), (DRAWS, len(table_N4)))
    sums_R4 = np.stack([table_N4[rows].sum(axis=0) for rows in drawn])

    def rate(column: int) -> Rate:
        low, high = np.quantile(sums_R4[:, column] / sums_R4[:, column + 1], [0.025, 0.975])
        whole = table_N4.sum(axis=0)
        return Rate(float(whole[column] / whole[column + 1]), float(low), float(high))

    return SpeechErrors(rate(0), rate(2), len(counts), int(table_N4[:, 1].sum()))
