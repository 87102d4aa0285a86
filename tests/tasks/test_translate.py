"""Target sentence: what the decoder reads, what it should say, and how sure it may become."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from standins import V, toy_translator

from glassformer.tasks import Translate

START, END, PAD = 1, 2, 0
PAIRS = [([11, 12, 13], [21, 22]), ([14], [23, 24, 25, 26]), ([15, 16], [])]


def smoothed(share: float) -> Translate:
    return Translate(start_token=START, end_token=END, pad_token=PAD, label_smoothing=share)


class AlwaysSaysTwo(torch.nn.Module):
    """V=3; probabilities 1/7, 2/7, 4/7 at every place."""

    def forward(self, source_BS, target_BT, source_lengths_B):
        return torch.tensor([1.0, 2.0, 4.0]).log().expand(*target_BT.shape, 3)


def test_a_batch_to_look_at():
    source, lengths, target_in, target_out = smoothed(0.1).collate(PAIRS)
    assert source.tolist() == [[11, 12, 13], [14, 0, 0], [15, 16, 0]] and lengths.tolist() == [3, 1, 2]
    assert target_in.tolist() == [[1, 21, 22, 0, 0], [1, 23, 24, 25, 26], [1, 0, 0, 0, 0]]
    assert target_out.tolist() == [[21, 22, 2, -100, -100], [23, 24, 25, 26, 2], [2] + [-100] * 4]


def test_the_model_reads_the_target_of_one_place_earlier():
    """Also from numpy arrays, in which token stores come."""
    pairs = [(np.array(source, np.uint16), np.array(target, np.uint16)) for source, target in PAIRS]
    _, _, target_in, target_out = smoothed(0.1).collate(pairs)
    text = target_out[:, :-1]
    assert torch.equal(target_in[:, 1:].where(text >= 3, 0), text.where(text >= 3, 0))


def test_label_smoothing_by_hand():
    """Of the target 0 remain 1 - e + e/3, the other two get e/3 each. -ln p: ln 7, ln 7/2, ln 7/4."""
    e = 0.3
    expected = (1 - e) * math.log(7) + e / 3 * (math.log(7) + math.log(7 / 2) + math.log(7 / 4))
    batch = (torch.tensor([[5]]), torch.tensor([1]), torch.tensor([[1]]), torch.tensor([[0]]))
    assert smoothed(e).loss(AlwaysSaysTwo(), batch)[0].item() == pytest.approx(expected)
    rows = smoothed(e).rows(AlwaysSaysTwo(), batch)
    assert rows.sums_B.item() == pytest.approx(math.log(7))  # reported without
    assert (rows.counts_B.item(), rows.correct_B.item()) == (1, 0)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_label_smoothing_is_that_of_torch(share: float):
    model, batch = toy_translator(), smoothed(share).collate(PAIRS)
    logits = model(batch[0], batch[2], batch[1]).reshape(-1, V)
    mean = F.cross_entropy(logits, batch[3].flatten(), label_smoothing=share)
    loss, count, further = smoothed(share).loss(model, batch)
    torch.testing.assert_close(loss / count, mean, rtol=1e-12, atol=0)
    assert count == 9 and not further
