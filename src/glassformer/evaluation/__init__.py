"""Level 4: how good is a model, with the number of cases and an interval."""

from glassformer.evaluation.bigram import bigram_loss
from glassformer.evaluation.compare import Comparison, compare_losses
from glassformer.evaluation.estimate import LossEstimate, Metric, Metrics, WindowLosses
from glassformer.evaluation.phonemes import PronunciationErrors, pronunciation_errors
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.evaluation.translation import TranslationScores, translation_scores
from glassformer.renamed import keep_old_names

__all__ = [
    "Comparison",
    "LossEstimate",
    "Metric",
    "Metrics",
    "PronunciationErrors",
    "RowLosses",
    "TranslationScores",
    "WindowLosses",
    "bigram_loss",
    "compare_losses",
    "evaluate_rows",
    "pronunciation_errors",
    "translation_scores",
]

keep_old_names(__name__)
