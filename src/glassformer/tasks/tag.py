"""Tag: one label for each token, such as its part of speech.

the cat sleeps      target: DET NOUN VERB
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from glassformer.data.examples import Example
from glassformer.errors import DataError, did_you_mean, plural
from glassformer.tasks.base import Batch
from glassformer.tasks.classify import Classify
from glassformer.tasks.examples import check_classes, classes_of
from glassformer.tasks.losses import IGNORED, check_not_empty, padded


class Tag(Classify):
    """Cross-entropy over classes, one target a token (Devlin et al. 2018, https://arxiv.org/abs/1810.04805, section
    5.3). A label of -100 is no target: where a word has several tokens, usually all but its first.

    A batch is (inputs_BT, lengths_B, targets_BT). Arguments as of `Classify`.
    """

    asks: ClassVar[str] = "token_class"
    head: ClassVar[Mapping[str, Any]] = {"token_head": "classes"}
    command: ClassVar[str] = ""
    default_kind: ClassVar[tuple[str, str]] = ("words", "a tag for each word")

    @classmethod
    def labels_of(cls, examples: Sequence[Example], known: tuple[str, ...]) -> tuple[str, ...]:
        return classes_of((tag for example in examples for tag in example.target.split()), known)

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids, a number for the tag of each): the target names them, with spaces between."""
        number, examples = {tag: i for i, tag in enumerate(self.labels)}, self.source.examples[split]
        rows = []
        for example, ids in zip(
            examples, self.source.reader.encode_documents([e.source for e in examples]), strict=True
        ):
            tags = example.target.split()
            if len(ids) != len(tags):
                raise DataError(
                    f"{example.source[:40]!r} has {plural(len(ids), 'token')} and {plural(len(tags), 'tag')}; "
                    "give one tag a token, with spaces between"
                )
            if unknown := set(tags) - number.keys():
                raise DataError(
                    f"the tag {min(unknown)!r} is not one that was learned; {did_you_mean(min(unknown), number)}"
                )
            rows.append((ids[:T], [number[tag] for tag in tags[:T]]))
        cut = sum(len(e.target.split()) > T for e in examples)
        self.source.notice(cut, "text", split, f"cut to {T} tokens")
        return rows

    def collate(
        self, examples: Sequence[tuple[Sequence[int], Any]], random: np.random.Generator | None = None
    ) -> Batch:
        """(ids, labels) pairs -> a batch.

        Raises:
            DataError: there is no example, one has no token or not one label a token, or a label is no class.
        """
        texts, labels = [ids for ids, _ in examples], [labels for _, labels in examples]
        check_not_empty(texts, "text")
        for number, (ids, its_labels) in enumerate(examples):
            if len(ids) != len(its_labels):
                raise DataError(
                    f"example {number} of a batch has {len(ids)} tokens and {len(its_labels)} labels; "
                    f"give each token one, {IGNORED} where there is no target"
                )
            check_classes([label for label in its_labels if label != IGNORED], self.n_classes)
        targets_BT, _ = padded(labels, IGNORED)
        return *padded(texts, self.pad_token), targets_BT

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, T, classes)."""
        inputs_BT, lengths_B, _ = batch
        logits: Tensor = model.token_logits(model(inputs_BT, lengths_B))
        return logits

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        return ""
