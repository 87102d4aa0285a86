"""Supervised fine-tuning: cross-entropy on the assistant's turns, and on nothing else.

loss = - sum over the tokens t of the assistant's turns of log p(t | everything before)

Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, section 3.5 (step 1).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from torch import nn

from glassformer.errors import DataError
from glassformer.evaluation.rows import RowLosses
from glassformer.tasks.base import Batch, Loss
from glassformer.tasks.chats import ChatTask, chat_sequences, collate_tokens, inputs_and_targets
from glassformer.tasks.next_token import NextToken


class SFT(ChatTask):
    """Learns answers. A batch is (inputs_BT, targets_BT); a target of -100 is read and not trained."""

    form: ClassVar[str] = "messages, or a prompt and its completion"

    def encode(self, split: str, T: int) -> list[Any]:
        """(inputs, targets) of every chat."""
        found, cut, lost = [], 0, 0
        for row in self.source.examples[split]:
            for sequence in chat_sequences(self.tokenizer, row, row.answers[0]):
                pair = inputs_and_targets(sequence, T)
                cut += len(sequence.ids) > T + 1
                lost += pair is None
                found += [] if pair is None else [pair]
        self.source.notice(cut - lost, "chat", split, f"cut to {T} tokens")
        self.source.notice(lost, "chat", split, f"left out: no answer begins within {T} tokens")
        if not found:
            raise DataError(f"no answer begins within {T} tokens; use a larger training.sequence_length")
        return found

    def collate(self, examples: Sequence[tuple[np.ndarray, np.ndarray]], random: Any = None) -> Batch:
        return collate_tokens(examples)

    def loss(self, model: nn.Module, batch: Batch) -> Loss:
        """The loss of every trained token."""
        return NextToken.loss(self, model, batch)  # type: ignore[arg-type]

    def rows(self, model: nn.Module, batch: Batch) -> RowLosses:
        return NextToken.rows(self, model, batch)  # type: ignore[arg-type]
