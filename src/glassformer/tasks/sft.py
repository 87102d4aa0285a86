"""Supervised fine-tuning: cross-entropy on the assistant's turns, and on nothing else.

loss = - sum over the tokens t of the assistant's turns of log p(t | everything before)

Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, section 3.5 (step 1). With `packing` several chats share a
sequence, and attention stays inside each: the same losses with less padding (`data/packing.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from glassformer.data.example_batches import ExampleBatches
from glassformer.data.packing import pack, padding
from glassformer.errors import DataError, UsageError, plural
from glassformer.evaluation.rows import RowLosses
from glassformer.models import ModelConfig
from glassformer.tasks.base import Batch, Batches, Loss
from glassformer.tasks.chats import chat_sequences, collate_tokens, inputs_and_targets
from glassformer.tasks.exact_match import CountedSettings, CountedTask
from glassformer.tasks.next_token import trained_loss, trained_rows
from glassformer.tasks.settings import TaskSettings

RELATIVE = ("rotary", "alibi", "relative", "none")  # positions that see distances alone, wherever a chat begins


class SFTSettings(CountedSettings):
    """[task] of `sft`."""

    packing: bool = False
    """several chats in one training sequence, each seeing itself alone"""


class SFT(CountedTask):
    """Learns answers. A batch is (inputs_BT, targets_BT); a target of -100 is read and not trained. With packing a
    training batch is (inputs_BT, documents_BT, targets_BT), and a token sees those of its own document."""

    Settings: ClassVar[type[TaskSettings]] = SFTSettings
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

    def collate(self, examples: Sequence[tuple[np.ndarray, ...]], random: Any = None) -> Batch:
        return collate_tokens(examples)

    def packed(self, T: int) -> list[Any]:
        """The training chats, several in a sequence of T tokens: (inputs, documents, targets)."""
        cache = self.source.encoded
        if ("packed", T) not in cache:
            cache["packed", T] = pack(self.encoded("train", T), T)
        return cache["packed", T]

    def training_rows(self, T: int) -> int:
        return len(self.packed(T) if self.settings.packing else self.encoded("train", T))

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        if not self.settings.packing:
            return super().batches(split, rank, world_size)
        return ExampleBatches(
            self.packed(self.run.sequence_length),
            self.collate,
            by_chance=False,
            batch_size=self.run.batch_size // world_size,
            seed=self.run.seed,
            rank=rank,
            world_size=world_size,
        )

    def check(self, config: Any) -> None:
        super().check(config)
        if not self.settings.packing or config is None:
            return
        if not isinstance(config, ModelConfig):
            raise UsageError(f"task.packing masks attention, and a model of kind {config.kind} has none; leave it out")
        if config.positions not in RELATIVE or config.n_gram > 1:
            what = f"model.n_gram={config.n_gram}" if config.n_gram > 1 else f"model.positions={config.positions}"
            raise UsageError(f"task.packing would change what a chat computes with {what}; leave task.packing out")

    def warnings(self) -> list[str]:
        found = super().warnings()
        if self.settings.packing:
            T = self.run.sequence_length
            chats, packed = self.encoded("train", T), self.packed(T)
            before, after = (padding(rows, self.run.batch_size, self.run.seed) for rows in (chats, packed))
            found.append(
                f"packing: {plural(len(chats), 'chat')} in {plural(len(packed), 'sequence')}; a pass pads "
                f"{after:,} tokens instead of {before:,}"
            )
        return found

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every trained token."""
        return trained_loss(model, batch)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of every sequence over its trained tokens."""
        return trained_rows(model, batch)
