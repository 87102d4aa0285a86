"""Level 5: what is asked of a model. An objective turns a batch into a sum of losses and the count behind it."""

from glassformer.objectives.cross_entropy import linear_cross_entropy
from glassformer.objectives.next_token import NextToken

OBJECTIVES = {"next_token": NextToken}

__all__ = ["OBJECTIVES", "NextToken", "linear_cross_entropy"]
