"""Skip-gram against its readable twin, and what is drawn against the chances it is drawn with."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toys import shaken

from glassformer.errors import UsageError
from glassformer.history import SkipGramTask
from glassformer.history.skip_gram_task import neighbouring
from glassformer.models import build_model, make_config

V, C, B, T, K = 61, 5, 3, 13, 7


def small(kind: torch.dtype = torch.float64):
    return build_model(make_config("skip-gram", vocab_size=V, block_size=T, n_embd=C)).to(kind)


@torch.no_grad()
def skip_gram_twin(own_VC, other_VC, batch, negatives: float) -> tuple[float, int]:
    """The loss of a batch and its pairs, one pair after the other."""
    noise_BK, reach_BT, words_BT = (part.tolist() for part in batch)
    total, pairs = 0.0, 0
    for noise, reach, words in zip(noise_BK, reach_BT, words_BT, strict=True):
        for i, word in enumerate(words):
            for j, neighbour in enumerate(words):
                if -100 in (word, neighbour) or not 0 < abs(i - j) <= reach[i]:
                    continue
                total -= float(F.logsigmoid(own_VC[word] @ other_VC[neighbour]))
                for k in noise:
                    total -= negatives / len(noise) * float(F.logsigmoid(-(own_VC[word] @ other_VC[k])))
                pairs += 1
    return total, pairs


def rows() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, V, size=n) for n in (T, 11, 2)]


def test_the_products_are_the_twins_walk_from_pair_to_pair():
    asked, model = SkipGramTask(counts=np.arange(V), window=4, noise=K, negatives=3.0), shaken(small())
    batch = asked.collate(rows(), np.random.default_rng(1))
    assert [tuple(part.shape) for part in batch] == [(B, K), (B, T), (B, T)]
    total, count, _ = asked.loss(model, batch)
    by_hand, pairs = skip_gram_twin(model.embedding.weight, model.neighbour.weight, batch, negatives=3.0)
    assert total.item() == pytest.approx(by_hand, rel=1e-12) and count == pairs
    shown = asked.rows(model, batch)
    for row in range(B):
        alone, n = skip_gram_twin(
            model.embedding.weight, model.neighbour.weight, tuple(part[row : row + 1] for part in batch), 3.0
        )
        assert shown.sums_B[row].item() == pytest.approx(alone, rel=1e-12) and shown.counts_B[row] == n


def test_before_anything_is_learned_every_two_words_are_as_likely_as_not():
    asked = SkipGramTask(counts=np.arange(V), negatives=4.0)
    total, count, _ = asked.loss(small(), asked.collate(rows(), np.random.default_rng(1)))
    assert total.item() / count == pytest.approx((1 + 4) * math.log(2), rel=1e-12)


def test_who_is_whose_neighbour():
    words = torch.tensor([[7, 8, 9, 10, -100]])
    reach = torch.tensor([[1, 2, 1, 3, 5]])
    expected = [[0, 1, 0, 0, 0], [1, 0, 1, 1, 0], [0, 1, 0, 1, 0], [1, 1, 1, 0, 0], [0, 0, 0, 0, 0]]
    assert neighbouring(reach, words)[0].int().tolist() == expected


def test_a_neighbour_is_hit_when_it_is_likelier_than_all_the_noise():
    model = small()
    with torch.no_grad():
        model.embedding.weight.zero_()[:, 0] = 1.0
        model.neighbour.weight.zero_()[:, 0] = torch.arange(V).double()  # the higher the id, the likelier
    batch = torch.tensor([[20, 30]]), torch.tensor([[1, 1, 1]]), torch.tensor([[31, 25, 40]])
    shown = SkipGramTask(counts=np.ones(V)).rows(model, batch)  # pairs: 31-25, 25-31, 25-40, 40-25
    assert (shown.counts_B.item(), shown.correct_B.item()) == (4, 2)


def test_noise_follows_the_counts_to_their_power_and_reach_is_even():
    """100,000 draws: a share of p lies within 5 standard errors but once in 1.7 million."""
    counts = np.array([0, 1, 16, 81, 0])
    asked = SkipGramTask(counts=counts, power=0.5, noise=1000, window=4)
    noise, reach, _ = asked.collate([[1, 2, 3]] * 100, np.random.default_rng(2))
    drawn = np.bincount(noise.flatten().numpy(), minlength=5) / noise.numel()
    expected = np.array([0, 1, 4, 9, 0]) / 14
    assert drawn[0] == drawn[4] == 0
    assert (np.abs(drawn - expected) <= 5 * np.sqrt(expected * (1 - expected) / noise.numel())).all()
    assert set(reach.flatten().tolist()) == {1, 2, 3, 4}


def test_a_text_without_known_words_is_one_line():
    with pytest.raises(UsageError, match="no word of this vocabulary occurs in the text"):
        SkipGramTask(counts=np.zeros(V))
    with pytest.raises(UsageError, match=r"^task\.window=0 "):
        SkipGramTask(counts=np.ones(V), window=0)
