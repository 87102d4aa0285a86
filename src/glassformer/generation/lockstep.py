"""The plain decode loop: all samples of one prompt, or of one batch of sources, take each step together.

It serves models without the engine's cache of rows (encoder-decoders, recurrent models), and without any cache it is
the engine's readable twin.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from glassformer.generation.eval_mode import evaluating
from glassformer.generation.filters import token_logits
from glassformer.generation.rows import Row, Sampled
from glassformer.generation.sampling import sample_tokens

R = TypeVar("R", bound=Row)


class Reader(Protocol):
    """A model that gives the logits of the next token of some rows of equal length."""

    def next_logits(self, rows: Sequence[Row]) -> Tensor:
        """(B, V) logits."""

    def keep(self, rows: list[int]) -> None:
        """Continue with these rows only."""


@torch.inference_mode()
def lockstep(
    reader: Reader, rows: list[R], n_tokens: int | None, missing: Sequence[int] = ()
) -> Iterator[tuple[R, Sampled, Tensor]]:
    """(row, its next token, the model's logits (V,)) of each row, step by step, until all are finished. The caller
    appends the token to the row.

    n_tokens, missing: as of `token_logits`.

    Raises:
        DivergenceError: the logits are no numbers.
    """
    while rows:
        logits_BV = token_logits(reader.next_logits(rows), n_tokens, missing).cpu()
        for row, sampled, logits_V in zip(rows, sample_tokens(logits_BV, rows), logits_BV, strict=True):
            if isinstance(sampled, Exception):
                raise sampled
            yield row, sampled, logits_V
        unfinished = [b for b, row in enumerate(rows) if row.finish_reason is None]
        if 0 < len(unfinished) < len(rows):
            reader.keep(unfinished)
        rows = [rows[b] for b in unfinished]


class SlidingContext:
    """Reads samples of one prompt with a causal model, beyond block_size too (see `Request.window`)."""

    def __init__(self, model: Any, *, use_cache: bool = True):
        self.model = model
        self.cache: Any = model.new_cache(1) if use_cache else None
        self._begun = False

    def next_logits(self, rows: Sequence[Row]) -> Tensor:
        n_rows = len(rows)
        if not self._begun:  # the prompt is read once, whatever the number of samples
            rows = rows[:1]
        slid = [row.slide() for row in rows]  # all of them or none
        if any(slid) and self.cache is not None:
            self.cache.rewind(0)
        seen_BT = torch.tensor([row.seen for row in rows], device=next(self.model.parameters()).device)
        if self.cache is not None:
            seen_BT = seen_BT[:, self.cache.length :]
        with evaluating(self.model):
            hidden_BTC = self.model.hidden(seen_BT, cache=self.cache)
            logits_BV = self.model.logits(hidden_BTC[:, -1:]).squeeze(1)
            if not self._begun and self.cache is not None:
                self.cache = self.cache.fork(n_rows)
        self._begun = True
        return logits_BV.expand(n_rows, -1)

    def keep(self, rows: list[int]) -> None:
        if self.cache is not None:
            self.cache.reorder(torch.tensor(rows, device=next(self.model.parameters()).device))


def next_logits(model: Any, ids_BT: Tensor) -> Tensor:
    """The whole next-token distribution in one call: ids (B, T) -> logits (B, V), of the last block_size tokens."""
    with evaluating(model):
        hidden_BTC = model.hidden(ids_BT[:, -model.config.block_size :], cache=None)
        return model.logits(hidden_BTC[:, -1:]).squeeze(1)
