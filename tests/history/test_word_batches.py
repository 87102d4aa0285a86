"""Rows of words: thinned as the formula says, every kept word once an epoch, the same after a resume and over ranks."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from glassformer.data.token_store import TokenView
from glassformer.errors import DataError, UsageError
from glassformer.history import WordBatches, word_counts, word_rows
from glassformer.history.word_batches import cut, keep_probabilities, thinned

V, T = 11, 7


def view(n: int = 5000, seed: int = 0) -> TokenView:
    random = np.random.default_rng(seed)
    ids = np.minimum(random.geometric(0.3, size=n) - 1, V - 1).astype(np.uint16)
    return TokenView("train", [ids[:1234], ids[1234:]], np.array([0]), n)


def collate(rows, random):
    """A small real one: the rows, and a number drawn for each."""
    return torch.from_numpy(random.random(len(rows))), torch.from_numpy(np.asarray(rows, dtype=np.int64))


def batches(subsample: float = 1.0, **changes) -> WordBatches:
    counts = word_counts(view(), V, without=[V - 1])
    settings = {"block_size": T, "batch_size": 5, "subsample": subsample, "seed": 3, **changes}
    return WordBatches(view(), counts, collate, **settings)


def test_counts_leave_out_what_is_no_word():
    counts = word_counts(view(), V, without=[V - 1])
    ids = view().read(0, 5000)
    assert counts.tolist() == [*(int((ids == i).sum()) for i in range(V - 1)), 0]


def test_frequent_words_are_kept_by_the_formula():
    """Each share of about 1,500 draws lies within 5 standard errors."""
    counts = word_counts(view(), V, without=[V - 1])
    kept = keep_probabilities(counts, 0.02)
    share = counts[0] / counts.sum()
    assert kept[0] == pytest.approx(np.sqrt(0.02 / share) + 0.02 / share, rel=1e-6)
    assert kept[V - 1] == 0 and kept[8] == 1
    ids = thinned(view(), kept, np.random.default_rng(5))
    for word in range(V):
        p, n = float(kept[word]), max(int(counts[word]), 1)
        assert abs((ids == word).sum() / n - p) <= 5 * np.sqrt(p * (1 - p) / n) + 1e-9, word


def test_an_epoch_holds_every_row_at_most_once_and_hardly_leaves_one_out():
    b = batches(seed=5)
    read = torch.cat([next(b)[1] for _ in range(b.steps_an_epoch)])
    text = thinned(view(), b.kept, np.random.default_rng(0))
    whole = cut(text, T, 0)
    assert 0.95 < len(read) / len(whole) <= 1
    words = np.bincount(read.flatten().numpy(), minlength=V) / np.bincount(text, minlength=V).clip(1)
    assert (words[: V - 4] > 0.9).all() and (words <= 1).all()
    rows, second = {tuple(row) for row in read.tolist()}, torch.cat([next(b)[1] for _ in range(b.steps_an_epoch)])
    again = {tuple(row) for row in second.tolist()}
    assert len(rows & again) < len(rows) / 2 < len(again)  # cut elsewhere


def test_it_continues_where_it_was():
    first = batches(0.05)
    for _ in range(first.steps_an_epoch - 2):
        next(first)
    state, second = first.state_dict(), batches(0.05, seed=99)
    second.load_state_dict(state)
    for _ in range(5):  # over the end of the epoch
        for a, b in zip(next(first), next(second), strict=True):
            assert torch.equal(a, b)


def test_two_ranks_read_what_one_would():
    one = batches(0.05, batch_size=6)
    ranks = [batches(0.05, batch_size=3, rank=rank, world_size=2) for rank in (0, 1)]
    for _ in range(4):
        parts = [next(rank) for rank in ranks]
        for whole, *halves in zip(next(one), *parts, strict=True):
            assert torch.equal(whole, torch.cat(halves))


def test_a_held_out_split_is_read_once_and_the_same_way_each_time():
    counts = word_counts(view(), V, without=[V - 1])
    held_out = view(400, seed=1)
    settings = {"block_size": T, "batch_size": 4, "subsample": 0.5, "seed": 3}
    first, second = ([*word_rows(held_out, counts, collate, **settings)] for _ in range(2))
    assert all(torch.equal(a, b) for x, y in zip(first, second, strict=True) for a, b in zip(x, y, strict=True))
    kept = sum(len(rows) for _, rows in first) * T
    expected = (np.bincount(held_out.read(0, 400), minlength=V) * keep_probabilities(counts, 0.5)).sum()
    assert abs(kept - expected) < 60
    with pytest.raises(DataError, match="the train split does not fill one row of 500 words"):
        next(word_rows(held_out, counts, collate, **{**settings, "block_size": 500}))


def test_too_little_text_is_one_line():
    with pytest.raises(DataError, match=r"rows of 7 words, and a step reads 5000; give more text or a smaller"):
        batches(batch_size=5000)
    with pytest.raises(UsageError, match="batch_size=0"):
        batches(batch_size=0)
