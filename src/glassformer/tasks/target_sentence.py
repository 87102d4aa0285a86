"""Target sentence: the source has been read; word for word, how surprising is its counterpart?

source       the cat sleeps
target in    <start> le  chat dort        what the decoder reads
target out   le     chat dort <end>       what it should say at each place
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from glassformer.models import EncoderDecoder
from glassformer.tasks.cross_entropy import IGNORED, linear_cross_entropy
from glassformer.tasks.next_token import many_logits
from glassformer.tasks.objective import (
    Batch,
    ObjectiveSettings,
    RowLosses,
    check_not_empty,
    number_of,
    padded,
    row_losses,
    summed_cross_entropy,
)

Pair = tuple[Sequence[int], Sequence[int]]


class SentenceSettings(ObjectiveSettings):
    """label_smoothing: the share of each target that is spread over the vocabulary; 0.1 in the 2017 paper."""

    label_smoothing: float = Field(default=0.1, ge=0, lt=1)


class TargetSentence:
    """Cross-entropy of the target sentence given the source, with label smoothing.

    With smoothing e the model is asked for (1 - e) of certainty in the right token and e / V in each of the V: it must
    not become too sure, which costs perplexity and wins BLEU (Vaswani et al. 2017, https://arxiv.org/abs/1706.03762,
    section 5.4; the idea is Szegedy et al. 2015, https://arxiv.org/abs/1512.00567, section 7). It is trained with that
    and reported without.

    A batch is (source_BS, source_lengths_B, target_in_BT, target_out_BT). Where the target is filled up, its -100 does
    not count; the model is told where the source ends, and a causal decoder does not look at what comes later.

    Args:
        start_token, end_token: what the target given to the model begins with, what it should end with.
        pad_token: what fills up shorter rows. Nobody looks at it.
        settings: as in `SentenceSettings`.
    """

    asks: ClassVar[str] = "target"
    data: ClassVar[str] = "pairs"
    Settings: ClassVar[type[ObjectiveSettings]] = SentenceSettings
    by_chance: ClassVar[bool] = False
    alarm: ClassVar[float | None] = 1.0  # nat a target

    def __init__(self, *, start_token: int, end_token: int, pad_token: int = 0, **settings: float):
        self.start_token, self.end_token, self.pad_token = start_token, end_token, pad_token
        self.settings = SentenceSettings.make(**settings)

    def collate(self, examples: Sequence[Pair], random: np.random.Generator | None = None) -> Batch:
        """Pairs of (source ids, target ids) -> a batch. The source is read as it is given; the target may be empty.

        Raises:
            DataError: there is no pair, or a source is empty.
        """
        sources, targets = [source for source, _ in examples], [target for _, target in examples]
        check_not_empty(sources, "source")
        source_BS, source_lengths_B = padded(sources, self.pad_token)
        target_in_BT, _ = padded([[self.start_token, *target] for target in targets], self.pad_token)
        target_out_BT, _ = padded([[*target, self.end_token] for target in targets], IGNORED)
        return source_BS, source_lengths_B, target_in_BT, target_out_BT

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of smoothed losses in nats, number of targets, further metrics); see `NextToken.loss`."""
        source_BS, source_lengths_B, target_in_BT, target_out_BT = batch
        smoothing = self.settings.label_smoothing
        if isinstance(model, EncoderDecoder) and many_logits(model.decoder, target_out_BT):
            hidden_BTC, head = model.hidden(source_BS, target_in_BT, source_lengths_B), model.decoder.head
            loss, _ = linear_cross_entropy(
                hidden_BTC.flatten(0, 1), head.weight, target_out_BT.flatten(), head.bias, IGNORED, smoothing
            )
        else:
            loss = summed_cross_entropy(_logits(model, batch), target_out_BT, smoothing)
        return loss, number_of(target_out_BT), {}

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What each pair cost, without smoothing; its hits are tokens said right when all before them are told."""
        return row_losses(_logits(model, batch), batch[-1])

    def count(self, batch: Batch) -> int:
        """The number of targets, ends included."""
        return int((batch[-1] != IGNORED).sum())


def _logits(model: nn.Module, batch: Batch) -> Tensor:
    source_BS, source_lengths_B, target_in_BT, _ = batch
    return model(source_BS, target_in_BT, source_lengths_B)  # (B, T, V)
