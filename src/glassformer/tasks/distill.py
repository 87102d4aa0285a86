"""Distillation: a small model learns what a large one expects at each token of the assistant's turns.

    forward   KL(teacher || model) = sum over the vocabulary of p_T (log p_T - log p)   covers all that it may say
    reverse   KL(model || teacher) = sum over the vocabulary of p (log p - log p_T)     keeps to what it says most

Hinton et al. 2015, https://arxiv.org/abs/1503.02531 (forward; with a temperature, times its square, section 2); Gu et
al. 2023, https://arxiv.org/abs/2306.08543 (reverse). The chats are given; the model does not write them itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from glassformer.data.batches import IGNORED
from glassformer.errors import UsageError
from glassformer.evaluation.rows import RowLosses
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.exact_match import CountedSettings, CountedTask
from glassformer.tasks.losses import hidden_for, rows_at_once
from glassformer.tasks.reference import frozen_model, vocabulary_of
from glassformer.tasks.settings import TaskSettings
from glassformer.tasks.sft import SFT


class DistillSettings(CountedSettings):
    """[task] of `distill`."""

    teacher: str = Field(min_length=1)
    """a run, a model folder or a pulled model with the same vocabulary"""
    kl: Literal["forward", "reverse"] = "forward"
    temperature: float = Field(default=1.0, gt=0)
    """divides the logits of both"""


class Distill(CountedTask):
    """A batch is (inputs_BT, targets_BT), as in `SFT`; what the targets are does not matter, but where they stand."""

    Settings: ClassVar[type[TaskSettings]] = DistillSettings
    form: ClassVar[str] = SFT.form
    paths: ClassVar[tuple[str, ...]] = ("template", "teacher")
    extra_passes = 1
    teacher: Any = None
    """the teacher itself, once it is loaded"""

    encode, collate = SFT.encode, SFT.collate

    def check(self, config: Any) -> None:
        vocabulary_of("task.teacher", self.settings.teacher, self.tokenizer)
        super().check(config)

    def teacher_for(self, model: Any) -> Any:
        """The teacher, on the device of the model.

        Raises:
            UsageError: there is no such model, or it has another vocabulary.
        """
        if self.teacher is None:
            device = str(next(model.parameters()).device)
            self.teacher = frozen_model("task.teacher", self.settings.teacher, self.tokenizer, device)
            theirs, ours = self.teacher.config.vocab_size, model.config.vocab_size
            if theirs != ours:
                raise UsageError(
                    f"task.teacher={self.settings.teacher} has {theirs:,} logits and the model {ours:,}; name one with "
                    "as many"
                )
        return self.teacher

    def divergences(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Of every trained token: the KL, the cross-entropy of the target, and whether both models' likeliest tokens
        are the same; (N,) each, in the order of the rows. Logits are made in pieces, as in `token_log_probs`."""
        inputs_BT, targets_BT = batch
        counts_BT = targets_BT != IGNORED
        with torch.no_grad():
            theirs_NC = hidden_for(self.teacher_for(model), inputs_BT, targets_BT)[counts_BT]
        ours_NC, targets_N = hidden_for(model, inputs_BT, targets_BT)[counts_BT], targets_BT[counts_BT]
        n = rows_at_once(model.config.vocab_size, targets_BT.device.type)
        pieces = []
        for parts in zip(ours_NC.split(n), theirs_NC.split(n), targets_N.split(n), strict=True):
            pieces.append(
                checkpoint(self._piece, model, *parts, use_reentrant=False, preserve_rng_state=False)
                if torch.is_grad_enabled()
                else self._piece(model, *parts)
            )
        kl_N, losses_N, agree_N = (torch.cat(found) for found in zip(*pieces, strict=True))
        return kl_N, losses_N, agree_N

    def _piece(self, model: Any, ours_nC: Tensor, theirs_nC: Tensor, targets_n: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            teacher_nV = self.teacher.logits(theirs_nC)
        logits_nV = model.logits(ours_nC)
        full = torch.promote_types(logits_nV.dtype, torch.float32)
        logits_nV, teacher_nV = logits_nV.to(full), teacher_nV.to(full)
        kl_n = kl_divergences(teacher_nV, logits_nV, self.settings.kl, self.settings.temperature)
        losses_n = torch.nn.functional.cross_entropy(logits_nV.detach(), targets_n, reduction="none")
        return kl_n, losses_n, logits_nV.argmax(dim=1) == teacher_nV.argmax(dim=1)

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The KL of every token. Metrics: cross-entropy of the targets, and how often both models' likeliest tokens
        agree."""
        kl_N, losses_N, agree_N = self.divergences(model, batch)
        n = len(kl_N)
        return Loss(kl_N.sum(), n, {"cross_entropy": (losses_N.sum(), n), "agreement": (agree_N.sum(), n)})

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The KL of every sequence over its tokens, and how often the likeliest tokens agree."""
        kl_N, _, agree_N = self.divergences(model, batch)
        counts_B = (batch[1] != IGNORED).sum(dim=1)
        sizes = counts_B.tolist()
        return RowLosses(
            torch.stack([part.double().sum() for part in kl_N.split(sizes)]),
            counts_B,
            torch.stack([part.sum() for part in agree_N.split(sizes)]),
        )


def kl_divergences(teacher_NV: Tensor, model_NV: Tensor, kl: str, temperature: float = 1.0) -> Tensor:
    """The KL of each place between the distributions of two sets of logits, (N,), times the temperature's square.

    kl: forward, KL(teacher || model), or reverse.
    """
    teacher, model = ((logits / temperature).log_softmax(dim=1) for logits in (teacher_NV, model_NV))
    first, second = (teacher, model) if kl == "forward" else (model, teacher)
    return (first.exp() * (first - second)).sum(dim=1) * temperature**2
