"""Level 6: how good is a model, with the number of cases and an interval."""

from glassformer.evaluation.loss import LossEstimate, evaluate_loss

__all__ = ["LossEstimate", "evaluate_loss"]
