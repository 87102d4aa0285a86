"""Level 6: how good is a model, with the number of cases and an interval."""

from glassformer.evaluation.bigram import bigram_loss
from glassformer.evaluation.compare import Comparison, compare_losses
from glassformer.evaluation.estimate import LossEstimate, WindowLosses
from glassformer.evaluation.examples import evaluate_rows
from glassformer.evaluation.loss import evaluate_loss, window_losses
from glassformer.evaluation.phonemes import PronunciationErrors, pronunciation_errors
from glassformer.evaluation.translation import TranslationScores, translation_scores
from glassformer.evaluation.word_vectors import WordVectorScores, score_word_vectors

__all__ = [
    "Comparison",
    "LossEstimate",
    "PronunciationErrors",
    "TranslationScores",
    "WindowLosses",
    "WordVectorScores",
    "bigram_loss",
    "compare_losses",
    "evaluate_loss",
    "evaluate_rows",
    "pronunciation_errors",
    "score_word_vectors",
    "translation_scores",
    "window_losses",
]
