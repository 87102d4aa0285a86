"""Target sentence: what the decoder reads, what it should say, and how sure it may become."""

from __future__ import annotations

import math
from unittest import mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from small_models import V, translator

from glassformer.taps import listening
from glassformer.tasks import Translate
from glassformer.tasks import losses as cross_entropy

START, END, PAD = 1, 2, 0
LONGER = [(text, text[::-1][: 3 + i]) for i, text in enumerate(np.random.default_rng(2).integers(10, V, (5, 12)))]
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
    model, batch = translator("classic"), smoothed(share).collate(PAIRS)
    logits = model(batch[0], batch[2], batch[1]).reshape(-1, V)
    mean = F.cross_entropy(logits, batch[3].flatten(), label_smoothing=share)
    loss, count, further = smoothed(share).loss(model, batch)
    torch.testing.assert_close(loss / count, mean, rtol=1e-12, atol=0)
    assert count == 9 and not further


@pytest.mark.parametrize("family", ["classic", "modern"])  # both with tied heads
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_translators_head_and_loss_go_in_pieces(monkeypatch, family: str, smoothing: float):
    """Loss and gradients are those of all logits at once, and a listener to the logits gets them whole."""
    asked = smoothed(smoothing)
    batch = asked.collate(LONGER)
    results = []
    for form in ("whole", "pieces"):
        model = translator(family)
        if form == "pieces":
            monkeypatch.setitem(cross_entropy.PIECE_BYTES, "cpu", 5 * 4 * 61)
            with mock.patch.object(type(model.decoder), "logits", side_effect=AssertionError("all logits were made")):
                loss, count, _ = asked.loss(model, batch)
            heard = []
            with listening(model, "decoder.logits", lambda _, x, heard=heard: heard.append(x.shape)):
                asked.loss(model, batch)
            assert heard == [(5, 8, 61)]
        else:
            loss, count, _ = asked.loss(model, batch)
        loss.backward()
        assert count == sum(len(target) + 1 for _, target in LONGER)
        results.append([loss.detach(), *(p.grad for p in model.parameters())])
    for whole, pieces in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=1e-10, atol=1e-10)
