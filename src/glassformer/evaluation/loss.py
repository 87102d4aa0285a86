"""Loss on held-out text: nats a token, bits a byte, perplexity, with the number of targets and a 95 % interval."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor, nn

from glassformer.evaluation.estimate import LossEstimate, WindowLosses
from glassformer.evaluation.examples import evaluate_rows
from glassformer.tasks import NextToken


def evaluate_loss(
    model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], *, bytes_per_token: float | None = None
) -> LossEstimate:
    """Mean next-token loss over batches of (inputs, targets), in eval mode; the model's mode is put back afterwards.

    Args:
        batches: each (B, T) ids twice. Over `data.windows(...)` every target of a split counts exactly once.
        bytes_per_token: UTF-8 bytes of the split divided by its tokens, for bits per byte.

    Raises:
        DataError: there are no batches, so there is no mean.
    """
    return window_losses(model, batches).estimate(bytes_per_token)


def window_losses(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> WindowLosses:
    """The same, with the losses of each window kept; see `evaluate_loss`."""
    return evaluate_rows(model, NextToken(), batches)[0]
