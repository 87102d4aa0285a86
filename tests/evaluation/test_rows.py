"""Any task on held-out examples: each counts once, whatever the batches."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from toys import toy_ids, toy_model

from glassformer.errors import DataError
from glassformer.evaluation import compare_losses, evaluate_rows
from glassformer.tasks import Classify, NextToken, Translate, window_losses


class Fixed(torch.nn.Module):
    """Classes 0, 1, 2 with probabilities 1/7, 2/7, 4/7 for whatever it reads; it remembers its mode."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.tensor([1.0, 2.0, 4.0]).log())
        self.modes: set[bool] = set()

    def forward(self, ids_BT, lengths_B):
        self.modes.add(self.training)
        return ids_BT

    def sequence_logits(self, vectors_BT, lengths_B):
        return self.logits.expand(len(vectors_BT), 3)


def batches(labels: list[int], size: int) -> list[tuple[torch.Tensor, ...]]:
    asked, rows = Classify(n_classes=3), [([1 + label, 5], label) for label in labels]
    return [asked.collate(rows[i : i + size]) for i in range(0, len(rows), size)]


@pytest.mark.parametrize("size", [1, 3, 7])
def test_by_hand_whatever_the_batches(size: int):
    """Labels 2, 2, 0, 1, 2, 2, 0: 4 of 7 are the most likely class."""
    losses, accuracy = evaluate_rows(Fixed(), Classify(n_classes=3).rows, batches([2, 2, 0, 1, 2, 2, 0], size))
    cost = {0: math.log(7), 1: math.log(7 / 2), 2: math.log(7 / 4)}
    assert losses.sums.tolist() == pytest.approx([cost[label] for label in (2, 2, 0, 1, 2, 2, 0)])
    assert losses.counts.tolist() == [1] * 7 and accuracy == 4 / 7
    again, _ = evaluate_rows(Fixed(), Classify(n_classes=3).rows, batches([2, 2, 0, 1, 2, 2, 0], 2))
    assert losses.targets == again.targets


def test_for_next_token_it_is_the_loss_of_windows():
    ids, model = toy_ids(5, 9), toy_model()
    windows = [(rows[:, :-1], rows[:, 1:]) for rows in ids.split(2)]
    shown, accuracy = evaluate_rows(model, NextToken().rows, windows)
    again = window_losses(model, windows)
    assert torch.equal(shown.sums, again.sums) and torch.equal(shown.counts, again.counts)
    assert shown.targets == again.targets
    right = (model(ids[:, :-1]).argmax(-1) == ids[:, 1:]).double().mean()
    assert accuracy == pytest.approx(right.item())


def test_what_fills_up_is_no_part_of_what_is_compared():
    """Two sentences in one batch, or each alone: the same targets, so two models can be compared pair by pair."""
    from_one = Translate(start_token=1, end_token=2).collate([([3], [4, 5, 6]), ([3, 4], [7])])
    alone = [Translate(start_token=1, end_token=2).collate([pair]) for pair in (([3], [4, 5, 6]), ([3, 4], [7]))]
    fewer = [Translate(start_token=1, end_token=2).collate([pair]) for pair in (([3], [4, 5]), ([3, 4], [7]))]

    class Uniform(torch.nn.Module):
        def forward(self, source_BS, target_BT, lengths_B):
            return torch.zeros(*target_BT.shape, 9)

    asked = Translate(start_token=1, end_token=2)
    (together, _), (singly, _), (other, _) = (
        evaluate_rows(Uniform(), asked.rows, b) for b in ([from_one], alone, fewer)
    )
    assert together.targets == singly.targets != other.targets
    assert together.counts.tolist() == [4, 2] and together.estimate().loss == pytest.approx(math.log(9))
    compared = compare_losses((together.estimate(), together), (singly.estimate(), singly))
    assert compared.method == "paired" and compared.difference == 0


@pytest.mark.parametrize("training", [False, True])
def test_it_is_read_in_eval_mode_and_the_mode_is_put_back(training: bool):
    model = Fixed().train(training)
    before = torch.get_rng_state()
    evaluate_rows(model, Classify(n_classes=3).rows, batches([0, 1], 1))
    assert model.modes == {False} and model.training is training and model.logits.grad is None
    assert torch.equal(torch.get_rng_state(), before)

    def broken():
        yield from batches([0], 1)
        raise OSError("the disk went away")

    with pytest.raises(OSError, match="the disk went away"):
        evaluate_rows(model, Classify(n_classes=3).rows, broken())
    assert model.training is training


def test_nothing_to_evaluate_on_is_one_clear_line():
    with pytest.raises(DataError, match=r"^no batches to evaluate on"):
        evaluate_rows(Fixed(), Classify(n_classes=3).rows, [])
    inputs = torch.from_numpy(np.ones((2, 3), dtype=np.int64))
    with pytest.raises(DataError, match="the 2 held-out examples hold no targets; give"):
        evaluate_rows(toy_model(), NextToken().rows, [(inputs, torch.full((2, 3), -100))])
