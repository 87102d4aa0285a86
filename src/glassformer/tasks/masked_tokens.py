"""Masked tokens: a few are hidden, and the model, which reads all others on both sides, predicts them.

text       [CLS] the  cat  sat  on   the  mat  [SEP]
chosen                ^                   ^              15 in 100
inputs     [CLS] the [MASK] sat on   the  mat  [SEP]     of these 80 are hidden, 10 become another, 10 stay
targets      -    -   cat   -   -    -    mat    -
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.evaluation.rows import RowLosses
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.examples import ExampleTask
from glassformer.tasks.losses import (
    IGNORED,
    check_not_empty,
    number_of,
    padded,
    place_losses,
    rows_of,
    summed_cross_entropy,
)
from glassformer.tasks.settings import TaskSettings
from glassformer.tasks.sources import ExampleSource


class MaskingSettings(TaskSettings):
    """[task] of kind masked_tokens. Random and unchanged tokens are there because the texts of later tasks hold no
    masks."""

    share: float = Field(default=0.15, gt=0, lt=1)
    """of the ordinary tokens of a text, how many are targets"""
    masked: float = Field(default=0.8, ge=0, le=1)
    """of the targets, how many are hidden behind the mask"""
    randomised: float = Field(default=0.1, ge=0, le=1)
    """of the targets, how many are shown as a random token; the rest is shown unchanged"""

    @model_validator(mode="after")
    def _check(self) -> MaskingSettings:
        if self.masked + self.randomised > 1 + 1e-9:
            raise UsageError(
                f"task.masked={self.masked:g} and task.randomised={self.randomised:g} are together more than 1; "
                f"try task.randomised={1 - self.masked:.3g}"
            )
        return self


class MaskedTokens(ExampleTask):
    """BERT's masked language model (Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section 3.1, appendix A.1).

    As in its code, the number of targets of a text is fixed: `share` of its ordinary tokens, rounded, at least one;
    which, is drawn. Special tokens are never targets, never hidden and, other than in BERT's code, never shown as the
    random token. A text of special tokens alone has no target.

    A batch is (inputs_BT, lengths_B, targets_BT). The head is computed at the places with a target and nowhere else:
    with a vocabulary of thousands it would otherwise cost more than the blocks.

    Args:
        mask_token: what hides a token.
        vocab_size: random tokens are ids below it.
        special_tokens: such as start, end and pad; the mask is always one.

    Raises:
        UsageError: a setting is out of range, or all tokens are special.
    """

    Settings: ClassVar[type[TaskSettings]] = MaskingSettings
    asks: ClassVar[str] = "masked_token"
    head: ClassVar[Mapping[str, Any]] = {"token_head": "vocabulary"}
    command: ClassVar[str] = "fill"
    by_chance: ClassVar[bool] = True

    def __init__(
        self,
        *,
        mask_token: int,
        vocab_size: int,
        special_tokens: Iterable[int] = (),
        **others: Any,
    ):
        super().__init__(**others)
        self.mask_token = mask_token
        self._special = np.array(sorted({*special_tokens, mask_token}))
        self._ordinary = np.setdiff1d(np.arange(vocab_size), self._special)
        if not len(self._ordinary):
            raise UsageError(f"all {vocab_size} tokens of the vocabulary are special; masks need ordinary ones")

    @classmethod
    def arguments(cls, source: ExampleSource) -> dict[str, Any]:
        fields = source.fields()
        if "mask_token" not in fields:
            raise UsageError("the tokenizer has no <mask> token; give another one, or leave out tokenizer.path")
        special = {"special_tokens": source.tokenizer.special_tokens.values()}
        return {**super().arguments(source), **special, **{key: fields[key] for key in ("mask_token", "vocab_size")}}

    def encode(self, split: str, T: int) -> list[Any]:
        """The ids of all texts, in pieces of at most T tokens."""
        return self.source.pieces(split, T)

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
        """One text (T,) -> (what is shown, targets), each (T,) int64."""
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

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of every target."""
        logits_NV, targets_N, _ = self._at_targets(model, batch)
        return Loss(summed_cross_entropy(logits_NV, targets_N), number_of(batch[-1]))

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        """The loss of each text, and how many of its hidden tokens were found."""
        logits_NV, targets_N, places_N = self._at_targets(model, batch)
        losses_N, hits_N = place_losses(logits_NV, targets_N)
        losses, hits = (x.new_zeros(batch[-1].numel()).index_copy(0, places_N, x) for x in (losses_N, hits_N))
        return rows_of(losses, hits, batch[-1])

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """A text with tokens hidden, and for each the most probable token / the one that stood there."""
        device = next(model.parameters()).device
        inputs_BT, lengths_B, targets_BT = self.collate([example[:64]], np.random.default_rng(number))
        with torch.inference_mode():
            guesses_T = model.token_logits(model(inputs_BT.to(device), lengths_B.to(device)))[0].argmax(dim=-1).tolist()
        name, targets_T = self.tokenizer.token_text, targets_BT[0].tolist()
        pairs = [f"{name(g)!r}/{name(t)!r}" for g, t in zip(guesses_T, targets_T, strict=True) if t != IGNORED]
        return f"text:         {self.text_with_specials(inputs_BT[0].tolist())}\nmodel/target: {', '.join(pairs)}"

    def _wanted(self, n: int) -> int:
        """How many of n ordinary tokens are targets."""
        return max(1, round(self.settings.share * n))

    def _at_targets(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """(logits (N, V), targets (N,), places (N,)) at N places of the flattened batch."""
        inputs_BT, lengths_B, targets_BT = batch
        B, T = inputs_BT.shape
        vectors_BTC = model(inputs_BT, lengths_B)
        targets = targets_BT.flatten()  # (B T,)
        if targets.device.type == "cpu" and not torch.compiler.is_compiling():
            places_N = (targets != IGNORED).nonzero().squeeze(1)
        else:
            # as many as there may be: a number that depends on shapes alone neither waits for a GPU nor recompiles.
            # Those with a target come first; the others have -100 and cost nothing
            most = min(B * T, B * self._wanted(T))
            places_N = (targets == IGNORED).to(torch.uint8).argsort(stable=True)[:most]
        logits_NV = model.token_logits(vectors_BTC.flatten(0, 1)[places_N])  # type: ignore[operator]
        return logits_NV, targets[places_N], places_N
