"""Tag: one label for each word, such as its part of speech.

the cat sleeps      target: DET NOUN VERB

    the  c|at  sleep|s
    DET  NOUN  VERB         a word of several tokens is tagged at its first one
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from glassformer.data.examples import Example
from glassformer.errors import DataError, UsageError, plural
from glassformer.evaluation.estimate import Metric, share_interval
from glassformer.generation.tagging import encode_words
from glassformer.tasks.base import Batch
from glassformer.tasks.classify import Classify
from glassformer.tasks.examples import shortened
from glassformer.tasks.losses import IGNORED, check_not_empty, padded
from glassformer.tasks.sources import check_classes, classes_of, numbers_of


class Tag(Classify):
    """Cross-entropy over classes, one target a word, at its first token (Devlin et al. 2018,
    https://arxiv.org/abs/1810.04805, section 5.3).

    A batch is (inputs_BT, lengths_B, targets_BT); a label of -100 is no target. Arguments as of `Classify`.
    """

    asks: ClassVar[str] = "token_class"
    head: ClassVar[Mapping[str, Any]] = {"token_head": "classes"}
    command: ClassVar[str] = "tag"
    default_kind: ClassVar[tuple[str, str]] = ("words", "a tag for each word")

    @classmethod
    def labels_of(cls, examples: Sequence[Example], known: tuple[str, ...]) -> tuple[str, ...]:
        return classes_of((tag for example in examples for tag in example.target.split()), known)

    def encode(self, split: str, T: int) -> list[Any]:
        """(ids, a number for the tag of each or -100): the target names the tags, with spaces between."""
        examples = self.source.examples[split]
        try:
            encoded = encode_words(self.source.reader, [e.source.split() for e in examples])
        except UsageError as error:
            raise DataError(str(error)) from None
        rows, cut = [], 0
        for example, (ids, firsts) in zip(examples, encoded, strict=True):
            tags = example.target.split()
            if len(tags) == len(ids):  # each token has its own, also those of a word
                firsts = [*range(len(ids))]
            if len(tags) != len(firsts):
                raise DataError(
                    f"{example.source[:40]!r} has {plural(len(firsts), 'word')} and {plural(len(tags), 'tag')}; "
                    "give one tag a word, with spaces between"
                )
            labels = np.full(len(ids), IGNORED)
            labels[firsts] = numbers_of(tags, self.labels)
            rows.append((ids[:T], labels[:T]))
            cut += len(ids) > T
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
        """A text, the tags that the model gives to its words, and those that they have."""
        ids, labels = example
        best_T = self.answer(model, example).argmax(dim=-1).numpy()
        lines = {"text:": self.source.reader.decode(ids)}
        for name, numbers in (("model:", best_T), ("target:", labels)):
            lines[name] = " ".join(self.labels[i] for i in numbers[np.asarray(labels) != IGNORED])
        return "\n".join(f"{name:<7} {shortened(line)}" for name, line in lines.items())

    def extra_scores(self, model: Any, split: str = "validation") -> TagBaseline | None:
        """What a table without a model reaches; None where there are no training examples to count."""
        examples = self.source.examples
        return tag_baseline(examples["train"], examples[split]) if examples["train"] and examples[split] else None


@dataclass(frozen=True)
class TagBaseline:
    """The accuracy of giving each word its most frequent tag in the training examples, and a new word the most frequent
    tag of all; and the share of new words."""

    accuracy: Metric
    new_words: Metric

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, JSON-able."""
        rows = {"baseline": self.accuracy, "new_words": self.new_words}
        return {name: {"share": m.value, "n": m.n, "interval": m.interval} for name, m in rows.items()}

    def lines(self) -> list[str]:
        """For `glassformer evaluate`."""
        share, n, interval = self.accuracy
        return [
            f"baseline       {100 * share:.2f} % +- {100 * interval:.2f} (95 %): a word's usual tag in training",
            f"new words      {100 * self.new_words.value:.2f} % of {n:,}",
        ]


def tag_baseline(train: Sequence[Example], test: Sequence[Example]) -> TagBaseline:
    """Count the tags of the training examples, and look up the words of the others."""
    counts: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for word, its_tag in _tagged(train):
        counts[word][its_tag] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    best = {word: tags.most_common(1)[0][0] for word, tags in counts.items()}
    usual, words = total.most_common(1)[0][0], _tagged(test)
    shares = [
        sum(best.get(word, usual) == its_tag for word, its_tag in words) / len(words),
        sum(word not in best for word, _ in words) / len(words),
    ]
    return TagBaseline(*(Metric(share, len(words), share_interval(share, len(words))) for share in shares))


def _tagged(examples: Sequence[Example]) -> list[tuple[str, str]]:
    """Each word with its tag; sentences with a tag for each token (not word) are left out."""
    pairs = [(e.source.split(), e.target.split()) for e in examples]
    return [pair for words, tags in pairs if len(words) == len(tags) for pair in zip(words, tags, strict=True)]
