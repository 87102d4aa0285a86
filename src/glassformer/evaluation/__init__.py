"""Level 6: how good is a model, with the number of cases and an interval."""

from glassformer.evaluation.bigram import bigram_loss
from glassformer.evaluation.compare import Comparison, compare_losses
from glassformer.evaluation.loss import LossEstimate, WindowLosses, evaluate_loss, window_losses

__all__ = [
    "Comparison",
    "LossEstimate",
    "WindowLosses",
    "bigram_loss",
    "compare_losses",
    "evaluate_loss",
    "window_losses",
]
