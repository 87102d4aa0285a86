"""Masked tokens: a few are hidden, and whoever has read all the others on both sides says what they were.

text       [CLS] the  cat  sat  on   the  mat  [SEP]
chosen                ^                   ^              15 in 100
inputs     [CLS] the [MASK] sat on   the  mat  [SEP]     of these 80 are hidden, 10 become another, 10 stay
targets      -    -   cat   -   -    -    mat    -
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.tasks.cross_entropy import IGNORED
from glassformer.tasks.objective import (
    Batch,
    ObjectiveSettings,
    RowLosses,
    check_not_empty,
    number_of,
    padded,
    place_losses,
    rows_of,
    summed_cross_entropy,
)


class MaskingSettings(ObjectiveSettings):
    """share: of the ordinary tokens of a text, how many are asked for. Of these, `masked` are shown as the mask,
    `randomised` as a token drawn from the vocabulary, the rest as they are.

    The rest and the random ones are there because the texts of later tasks hold no masks.
    """

    share: float = Field(default=0.15, gt=0, lt=1)
    masked: float = Field(default=0.8, ge=0, le=1)
    randomised: float = Field(default=0.1, ge=0, le=1)

    @model_validator(mode="after")
    def _check(self) -> MaskingSettings:
        if self.masked + self.randomised > 1 + 1e-9:
            raise UsageError(
                f"task.masked={self.masked:g} and task.randomised={self.randomised:g} are together more than "
                f"1; try task.randomised={1 - self.masked:.3g}"
            )
        return self


class MaskedTokens:
    """BERT's masked language model (Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1, appendix A.1).

    As in its code, the number of targets of a text is not left to chance: `share` of its ordinary tokens, rounded, at
    least one; which, is drawn. Special tokens are never asked for, never hidden and, other than in BERT's code, never
    shown as the random token. A text of special tokens alone asks nothing.

    A batch is (inputs_BT, lengths_B, targets_BT). The head is asked at the places with a target and nowhere else: with
    a vocabulary of thousands it would otherwise cost more than the blocks.

    Args:
        mask_token: what hides a token.
        vocab_size: random tokens are ids below it.
        special_tokens: such as start, end and pad; the mask is one anyhow.
        pad_token: what fills up shorter rows. Nobody looks at it.
        settings: as in `MaskingSettings`.

    Raises:
        UsageError: a setting makes no sense, or all tokens are special.
    """

    asks: ClassVar[str] = "masked_token"
    data: ClassVar[str] = "texts"
    Settings: ClassVar[type[ObjectiveSettings]] = MaskingSettings
    by_chance: ClassVar[bool] = True
    alarm: ClassVar[float | None] = 1.0  # nat a target

    def __init__(
        self,
        *,
        mask_token: int,
        vocab_size: int,
        special_tokens: Iterable[int] = (),
        pad_token: int = 0,
        **settings: float,
    ):
        self.mask_token, self.pad_token = mask_token, pad_token
        self.settings = MaskingSettings.make(**settings)
        self._special = np.array(sorted({*special_tokens, mask_token}))
        self._ordinary = np.setdiff1d(np.arange(vocab_size), self._special)
        if not len(self._ordinary):
            raise UsageError(f"all {vocab_size} tokens of the vocabulary are special; masks need ordinary ones")

    def collate(self, examples: Sequence[Sequence[int]], random: np.random.Generator) -> Batch:
        """Texts as ids -> a batch with its masks, all drawn from `random`.

        Raises:
            DataError: there is no example, or one has no token.
        """
        check_not_empty(examples, "text")
        shown, targets = zip(*(self.mask(ids, random) for ids in examples), strict=True)
        targets_BT, _ = padded(targets, IGNORED)
        return *padded(shown, self.pad_token), targets_BT

    def mask(self, ids: Sequence[int], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """One text (T,) -> (what is shown, what is asked), each (T,) int64."""
        shown = np.array(ids, dtype=np.int64)
        targets = np.full(len(shown), IGNORED)
        places = np.flatnonzero(~np.isin(shown, self._special))
        if not len(places):
            return shown, targets
        chosen = random.choice(places, self._wanted(len(places)), replace=False)  # (n,)
        targets[chosen] = shown[chosen]
        fate = random.random(len(chosen))
        others = random.choice(self._ordinary, len(chosen))
        s = self.settings
        shown[chosen] = np.where(fate < s.masked + s.randomised, others, shown[chosen])
        shown[chosen[fate < s.masked]] = self.mask_token
        return shown, targets

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, int | Tensor, dict[str, float]]:
        """-> (sum of losses in nats, number of targets, further metrics); see `NextToken.loss`."""
        logits_NV, targets_N, _ = self._asked(model, batch)
        return summed_cross_entropy(logits_NV, targets_N), number_of(batch[-1]), {}

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """What each text cost, and how many of its hidden tokens were found."""
        logits_NV, targets_N, places_N = self._asked(model, batch)
        losses_N, hits_N = place_losses(logits_NV, targets_N)
        losses, hits = (x.new_zeros(batch[-1].numel()).index_copy(0, places_N, x) for x in (losses_N, hits_N))
        return rows_of(losses, hits, batch[-1])

    def count(self, batch: Batch) -> int:
        """The number of targets."""
        return int((batch[-1] != IGNORED).sum())

    def _wanted(self, n: int) -> int:
        """How many of n ordinary tokens are asked for."""
        return max(1, round(self.settings.share * n))

    def _asked(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(logits (N, V), targets (N,), places (N,)): the head's answers at N places of the flattened batch."""
        inputs_BT, lengths_B, targets_BT = batch
        B, T = inputs_BT.shape
        vectors_BTC = model(inputs_BT, lengths_B)
        targets = targets_BT.flatten()  # (B T,)
        if targets.device.type == "cpu" and not torch.compiler.is_compiling():
            places_N = (targets != IGNORED).nonzero().squeeze(1)
        else:
            # as many as there may be: a number that depends on shapes alone neither waits for a GPU nor compiles anew.
            # Those with a target come first; the others have -100 and cost nothing
            most = min(B * T, B * self._wanted(T))
            places_N = (targets == IGNORED).to(torch.uint8).argsort(stable=True)[:most]
        logits_NV = model.token_logits(vectors_BTC.flatten(0, 1)[places_N])  # type: ignore[operator]
        return logits_NV, targets[places_N], places_N
