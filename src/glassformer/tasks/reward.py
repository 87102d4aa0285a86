"""Reward: which of two answers do people prefer? The model gives each one number.

    chosen     A fine film.      ──model──►  r = 1.3
    rejected   I left early.     ──model──►  r = -0.4      P(chosen is preferred) = sigmoid(1.3 + 0.4) = 0.85

Bradley and Terry 1952; as the loss of a reward model: Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, equation 1.
An encoder reads texts in pairs; a decoder, which a chat model becomes with another head, chats through their template
as well. Its number is that of the last token: the one that ends the answer.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.data.chat_sets import CHAT_SETS, ROW_BYTES
from glassformer.data.chats import ChatRow
from glassformer.data.json_lines import holds_json, json_rows
from glassformer.errors import DataError, UsageError
from glassformer.evaluation.estimate import Metric, Metrics
from glassformer.evaluation.rows import RowLosses
from glassformer.figures.primitives import Figure
from glassformer.tasks.base import Batch, Loss, Opening
from glassformer.tasks.calibration import Calibration
from glassformer.tasks.chats import ChatSource, ChatTask, chat_sequences
from glassformer.tasks.examples import LONGEST_SAMPLE, ExampleTask, shortened
from glassformer.tasks.losses import check_not_empty, padded
from glassformer.tasks.reward_model import rewards, rewards_of, rewards_of_ids, set_padding
from glassformer.tasks.settings import Choice, DataSettings
from glassformer.tasks.sources import check_targets, encode_texts


class Reward(ChatTask):
    """-log sigmoid(reward of the chosen answer - reward of the rejected one), one target a pair.

    A batch is (chosen_BT, lengths_B, rejected_BT, lengths_B, targets_B); the target is always 0, the place of the
    chosen answer. The accuracy of an evaluation is the share of pairs in which the chosen one gets the larger reward.
    Texts longer than the model reads lose their end; pairs of chats with a longer answer are left out.
    """

    asks: ClassVar[str] = "class"
    command: ClassVar[str] = ""
    form: ClassVar[str] = "chosen and rejected, after a prompt"
    n_row_answers: ClassVar[int | None] = 2
    placeholders: ClassVar[Mapping[str, Any] | None] = {**(ExampleTask.placeholders or {}), "n_classes": 1}
    tokenizer_side: ClassVar[str] = "both"
    measured: tuple[str, Calibration] | None = None
    """the split of the last evaluation of the present weights, and what it found"""

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> Any:
        name, template = opening.data.source, opening.settings.get("template")
        if holds_chats(name):
            source: Any = super().read(opening, choices)
        elif template is not None:
            raise UsageError(f"task.template={template} is of chats, and {name} holds texts; leave it out")
        else:
            source = super(ChatTask, cls).read(opening, choices)
        set_padding(source.tokenizer)
        return source

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        return super(ChatTask, cls).arguments(source)

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        return super().texts(data) if holds_chats(data.source) else super(ChatTask, cls).texts(data)

    @property
    def reads_chats(self) -> bool:
        """Whether the data are chats, and not texts."""
        return isinstance(self.source, ChatSource)

    @property
    def longest(self) -> int:
        return super().longest if self.reads_chats else super(ChatTask, self).longest

    @property
    def usual(self) -> float:
        return super().usual if self.reads_chats else super(ChatTask, self).usual

    @property
    def n_answers(self) -> int:
        """Two: a blind guess costs ln 2."""
        return 2

    def model_fields(self) -> dict[str, Any]:
        return {**super().model_fields(), "n_classes": 1}

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids of the chosen answer, ids of the rejected one), each with its prompt."""
        source: Any = self.source
        if self.reads_chats:
            pairs = [tuple(s.ids for s in self.row_sequences(row)) for row in source.examples[split]]
            fitting = [pair for pair in pairs if max(map(len, pair)) <= T]
            source.notice(len(pairs) - len(fitting), "pair", split, f"left out: an answer ends after {T} tokens")
            if not fitting:
                raise DataError(
                    f"every pair has an answer that ends after {T} tokens; use a larger training.sequence_length"
                )
            return fitting
        examples = source.examples[split]
        check_targets(examples, "rejected text")
        rejected = encode_texts([example.target for example in examples], source.reader)
        rejected = source.cut(rejected, split, T, "rejected text")
        return [*zip(source.cut(source.encode(split), split, T), rejected, strict=True)]

    def row_sequences(self, row: ChatRow) -> list[Any]:
        """The whole chat with either answer, up to the token that ends it."""
        return [chat_sequences(self.tokenizer, row, answer)[-1] for answer in row.answers]

    def collate(
        self, examples: Sequence[tuple[Sequence[int], Sequence[int]]], random: np.random.Generator | None = None
    ) -> Batch:
        """(chosen ids, rejected ids) pairs -> a batch.

        Raises:
            DataError: there is no pair, or a text is empty.
        """
        chosen, rejected = [ids for ids, _ in examples], [ids for _, ids in examples]
        check_not_empty(chosen, "text")
        check_not_empty(rejected, "text")
        targets_B = torch.zeros(len(examples), dtype=torch.int64)
        return *padded(chosen, self.pad_token), *padded(rejected, self.pad_token), targets_B

    def margins(self, model: Any, batch: Batch) -> Tensor:
        """Reward of the chosen answer minus that of the rejected one, (B,), fp32 at least."""
        chosen_BT, chosen_lengths_B, rejected_BT, rejected_lengths_B, _ = batch
        margins_B = rewards_of(model, chosen_BT, chosen_lengths_B) - rewards_of(model, rejected_BT, rejected_lengths_B)
        return margins_B.to(torch.promote_types(margins_B.dtype, torch.float32))

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every pair; metrics: `margin`, and `accuracy` on the training batch."""
        self.measured = None  # the weights are about to change
        margins_B = self.margins(model, batch)
        metrics = {"margin": (margins_B.sum(), len(margins_B)), "accuracy": ((margins_B > 0).sum(), len(margins_B))}
        return Loss(F.softplus(-margins_B).sum(), len(margins_B), metrics)

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each pair, and whether the chosen answer got the larger reward."""
        margins_B = self.margins(model, batch)
        return RowLosses(F.softplus(-margins_B).double(), torch.ones_like(batch[-1]), (margins_B > 0).long())

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        """Loss and accuracy of pairs, their mean margin, and the expected calibration error."""
        metrics = super().evaluate(model, split, whole=whole)
        assert metrics.windows is not None
        margins_N = margins_from(metrics.windows.sums)
        found, n = Calibration.of(margins_N.numpy()), len(margins_N)
        self.measured = (split, found)
        interval = 1.96 * float(margins_N.std()) / math.sqrt(n) if n > 1 else math.inf
        metrics.values["margin"] = Metric(float(margins_N.mean()), n, interval)
        metrics.values["calibration_error"] = Metric(found.error, n)
        return metrics

    def extra_scores(self, model: Any, split: str = "validation") -> Calibration:
        """How often the larger reward is right, by how much larger it is."""
        if self.measured is None or self.measured[0] != split:
            self.evaluate(model, split)
        assert self.measured is not None
        return self.measured[1]

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Some pairs with their rewards; calibration and margins of the validation split."""
        if self.measured is None or self.measured[0] != "validation":
            self.evaluate(model, whole=not self.run.eval_batches)
        assert self.measured is not None
        return [*super().sample(model, step), *self.measured[1].figures()]

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """Both answers with their rewards."""
        rewards = rewards_of_ids(model, example)
        whole = [self.tokenizer.decode(ids) for ids in example]
        texts = [shortened(text[-LONGEST_SAMPLE:] if self.reads_chats else text) for text in whole]  # the answer
        return f"chosen:   {rewards[0]:+.2f}  {texts[0]}\nrejected: {rewards[1]:+.2f}  {texts[1]}"


def margins_from(losses_N: Tensor) -> Tensor:
    """The margins m of losses -log sigmoid(m), both (N,) float64; at most 87."""
    losses_N = losses_N.clamp(min=1e-38)
    return -(losses_N + torch.log(-torch.expm1(-losses_N)))


def holds_chats(source: str) -> bool:
    """Whether a source of pairs holds chats, by its name or its first row."""
    if source in CHAT_SETS:
        return True
    path = Path(source).expanduser()
    if "," in source and not path.is_file():
        return any(holds_chats(part.strip()) for part in source.split(","))
    if not path.is_file() or not holds_json(path):
        return False
    _, _, row = next(iter(json_rows(path, ROW_BYTES)), ("", 0, {}))
    return any(isinstance(row.get(name), list | dict) for name in ("prompt", "chosen", "rejected")) or any(
        name in row for name in ("conversations", "messages", "instruction")
    )


__all__ = ["Reward", "holds_chats", "rewards", "rewards_of", "rewards_of_ids"]
