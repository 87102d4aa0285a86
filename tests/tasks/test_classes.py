"""Classes of whole sequences and of tokens."""

from __future__ import annotations

import math

import pytest
import torch

from glassformer.errors import DataError
from glassformer.tasks import Classify, Tag

REVIEWS = [([11, 12, 13], 2), ([14], 0), ([15, 16], 1)]
TAGGED = [([11, 12, 13], [2, -100, 0]), ([14], [1]), ([15, 16], [-100, 2])]


class Fixed(torch.nn.Module):
    """Probabilities 1/7, 2/7, 4/7 for every sequence and every token."""

    def forward(self, ids_BT, lengths_B):
        return torch.tensor([1.0, 2.0, 4.0]).log().expand(*ids_BT.shape, 3)

    def token_logits(self, vectors_BTC):
        return vectors_BTC

    def sequence_logits(self, vectors_BTC, lengths_B):
        return vectors_BTC[:, 0]


def test_a_sequence_is_asked_once_by_hand():
    """Labels 2, 0, 1: ln 7/4, ln 7, ln 7/2; the first is the most likely."""
    asked = Classify(n_classes=3)
    batch = asked.collate(REVIEWS)
    assert [part.tolist() for part in batch] == [[[11, 12, 13], [14, 0, 0], [15, 16, 0]], [3, 1, 2], [2, 0, 1]]
    loss, count, _ = asked.loss(Fixed(), batch)
    assert count == 3 and loss.item() == pytest.approx(math.log(7 / 4) + math.log(7) + math.log(7 / 2))
    rows = asked.rows(Fixed(), batch)
    assert rows.sums_B.tolist() == pytest.approx([math.log(7 / 4), math.log(7), math.log(7 / 2)])
    assert rows.counts_B.tolist() == [1, 1, 1] and rows.correct_B.tolist() == [1, 0, 0]


def test_each_token_is_asked_by_hand():
    asked = Tag(n_classes=3)
    batch = asked.collate(TAGGED)
    assert batch[2].tolist() == [[2, -100, 0], [1, -100, -100], [-100, 2, -100]]
    loss, count, _ = asked.loss(Fixed(), batch)
    assert count == 4 and loss.item() == pytest.approx(2 * math.log(7 / 4) + math.log(7) + math.log(7 / 2))
    rows = asked.rows(Fixed(), batch)
    assert rows.sums_B.tolist() == pytest.approx([math.log(7 / 4) + math.log(7), math.log(7 / 2), math.log(7 / 4)])
    assert rows.counts_B.tolist() == [2, 1, 1] and rows.correct_B.tolist() == [1, 0, 1]


@pytest.mark.parametrize("label", [3, -1, -100])
def test_a_label_that_is_no_class_is_one_clear_line(label: int):
    """-100 asks nothing of a token; of a sequence it would be an example without a question."""
    with pytest.raises(DataError, match=rf"^label {label} is not one of the 3 classes 0 \.\.\. 2; check n_classes$"):
        Classify(n_classes=3).collate([([11], 0), ([12], label)])
    if label != -100:
        with pytest.raises(DataError, match=rf"^label {label} is not one of the 3 classes"):
            Tag(n_classes=3).collate([([11, 12], [0, label])])


@pytest.mark.parametrize("labels", [[1], [1, 2, 0]])
def test_labels_that_do_not_stand_beside_their_tokens_are_one_clear_line(labels: list[int]):
    with pytest.raises(DataError, match=rf"^example 1 of a batch has 2 tokens and {len(labels)} labels; give each"):
        Tag(n_classes=3).collate([([11], [0]), ([12, 13], labels)])
