"""How near translations come to a person's: BLEU and chrF, as sacrebleu counts them.

Scores differ by several points with how words are cut; sacrebleu (Post 2018, https://arxiv.org/abs/1804.08771) fixes
that, and its signature states how.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from glassformer.errors import DataError, MissingExtraError
from glassformer.evaluation.estimate import finite
from glassformer.renamed import old_arguments

MOST_DRAWN = 5_000_000  # sentences that are drawn for an interval: some hundred MB of counts


@dataclass(frozen=True)
class CorpusScore:
    """score: 0 ... 100. interval: half the width of the 95 % interval, by resampling the sentences (Koehn 2004,
    https://aclanthology.org/W04-3250); infinite where nothing is known. signature: how sacrebleu counted."""

    score: float
    interval: float
    signature: str

    def __str__(self) -> str:
        return f"{self.score:.1f}" + (f" ± {self.interval:.1f}" if math.isfinite(self.interval) else "")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "interval": finite(self.interval)}


@dataclass(frozen=True)
class TranslationScores:
    """bleu: shared stretches of 1 to 4 words, against being too short (Papineni et al. 2002,
    https://aclanthology.org/P02-1040). chrf: F-score of shared stretches of 1 to 6 letters, which forgives an ending
    (Popović 2015, https://aclanthology.org/W15-3049). n: sentences."""

    bleu: CorpusScore
    chrf: CorpusScore
    n: int

    def to_dict(self) -> dict[str, Any]:
        return {"bleu": self.bleu.to_dict(), "chrf": self.chrf.to_dict(), "n": self.n}


@old_arguments(said="translations")
def translation_scores(
    translations: Sequence[str], references: Sequence[str], *, resamples: int = 1000
) -> TranslationScores:
    """Scores of all sentences together, which is not the mean of their scores.

    Args:
        translations: what the model wrote, as plain text (no subwords). references: those of a person, in this order.
        resamples: how often the sentences are drawn for the intervals; less often where they are more than 5,000.

    Raises:
        DataError: there are no sentences, or not one reference a sentence.
        MissingExtraError: sacrebleu is not installed.
    """
    try:
        from sacrebleu.metrics import BLEU, CHRF
    except ImportError:
        raise MissingExtraError("measuring BLEU and chrF", "translate") from None
    if len(translations) != len(references):
        n = len(references)
        raise DataError(f"{len(translations)} translations and {n} references; give one of each a sentence")
    if not translations:
        raise DataError("no translations to score; give at least one")
    n = len(translations)
    drawn = min(resamples, max(1, MOST_DRAWN // n)) if n > 1 else 1  # one sentence shows no spread
    bleu, chrf = (_score(metric, list(translations), [list(references)], drawn) for metric in (BLEU(), CHRF()))
    return TranslationScores(bleu, chrf, n)


def _score(metric: Any, translations: list[str], references: list[list[str]], resamples: int) -> CorpusScore:
    """Through the JSON form of sacrebleu's score, the public one that has the interval."""
    try:
        score = metric.corpus_score(translations, references, n_bootstrap=resamples)
    except TypeError:  # where some draws score 0: sacrebleu 2.6 takes the mean of Python's and numpy's numbers
        metric.n_bootstrap = 1
        score = metric.corpus_score(translations, references)
    signature = metric.get_signature().format()
    fields = json.loads(score.format(width=6, signature=signature, is_json=True))
    return CorpusScore(float(score.score), float(fields.get("confidence_var", math.inf)), signature)
