"""Level 5: what is asked of a model. An objective turns a batch into a sum of losses and the count behind it."""

from typing import Any

from glassformer.tasks.cross_entropy import linear_cross_entropy
from glassformer.tasks.masked_tokens import MaskedTokens
from glassformer.tasks.next_token import NextToken
from glassformer.tasks.objective import Objective, ObjectiveSettings, RowLosses
from glassformer.tasks.sequence_class import SequenceClass
from glassformer.tasks.skip_gram import SkipGram
from glassformer.tasks.spans import Spans
from glassformer.tasks.target_sentence import TargetSentence
from glassformer.tasks.token_class import TokenClass

OBJECTIVES: dict[str, type[Any]] = {
    "masked_tokens": MaskedTokens,
    "next_token": NextToken,
    "sequence_class": SequenceClass,
    "skip_gram": SkipGram,
    "spans": Spans,
    "target_sentence": TargetSentence,
    "token_class": TokenClass,
}

__all__ = [
    "OBJECTIVES",
    "MaskedTokens",
    "NextToken",
    "Objective",
    "ObjectiveSettings",
    "RowLosses",
    "SequenceClass",
    "SkipGram",
    "Spans",
    "TargetSentence",
    "TokenClass",
    "linear_cross_entropy",
]
