"""Batches: targets are inputs moved by one, nothing is lost, and a stopped stream continues as if never stopped."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from data_standins import ByteTokenizer

from glassformer.data import TokenBatches, TokenStore, TokenStoreWriter, fixed_batches, windows
from glassformer.data.batches import ORDERS
from glassformer.errors import UsageError


def make_view(folder, count: int, shard_tokens: int = 1000):
    """A split whose token at place i is i, so that every position can be told."""
    with TokenStoreWriter(folder / f"s{count}-{shard_tokens}", ByteTokenizer(), shard_tokens=shard_tokens) as writer:
        writer.append("train", np.arange(count, dtype=np.uint16), bytes=count, end_of_document=True)
    return TokenStore.open(folder / f"s{count}-{shard_tokens}").split("train")


def same(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


@pytest.mark.parametrize("shard_tokens", [1000, 13])
def test_a_batch_is_windows_and_the_same_moved_by_one(tmp_path, shard_tokens):
    batches = TokenBatches(make_view(tmp_path, 101, shard_tokens), block_size=7, batch_size=5, seed=3)
    for inputs, targets in itertools.islice(batches, 20):
        assert inputs.shape == targets.shape == (5, 7) and inputs.dtype == targets.dtype == torch.int64
        assert torch.equal(targets, inputs + 1)
        assert torch.equal(inputs, inputs[:, :1] + torch.arange(7))
        assert inputs.is_contiguous() and targets.is_contiguous()


@pytest.mark.parametrize("order", ["epochs", "random"])
def test_every_start_is_drawn_about_equally_often(tmp_path, order):
    """11 tokens, T = 7: starts 0 ... 3. Each count is binomial(4000, 1/4), sd 27: beyond 5 sd once in a million."""
    batches = TokenBatches(make_view(tmp_path, 11), block_size=7, batch_size=400, seed=0, order=order)
    starts = torch.cat([next(batches)[0][:, 0] for _ in range(10)])
    counts = torch.bincount(starts)
    assert len(counts) == 4 and (counts - 1000).abs().max() < 137


def test_seeds_differ_and_repeat(tmp_path):
    view = make_view(tmp_path, 500)
    draw = lambda seed: next(TokenBatches(view, block_size=7, batch_size=5, seed=seed))  # noqa: E731
    assert same(draw(1), draw(1)) and not same(draw(1), draw(2))


@pytest.mark.parametrize("order", ORDERS)
def test_resuming_equals_never_stopping(tmp_path, order):
    view = make_view(tmp_path, 500)
    whole = TokenBatches(view, block_size=7, batch_size=25, seed=1, order=order)
    expected = [next(whole) for _ in range(6)]
    stopped = TokenBatches(view, block_size=7, batch_size=25, seed=1, order=order)
    for _ in range(3):
        next(stopped)
    state = json.loads(json.dumps(stopped.state_dict()))
    resumed = TokenBatches(view, block_size=7, batch_size=25, seed=99, order="random")
    resumed.load_state_dict(state)
    assert all(same(next(resumed), batch) for batch in expected[3:])


@pytest.mark.parametrize("order", ORDERS)
def test_ranks_together_are_one(tmp_path, order):
    view = make_view(tmp_path, 500)
    one = TokenBatches(view, block_size=7, batch_size=6, seed=1, order=order)
    ranks = [
        TokenBatches(view, block_size=7, batch_size=2, seed=1, order=order, rank=rank, world_size=3)
        for rank in range(3)
    ]
    for _ in range(40):
        assert torch.equal(torch.cat([next(rank)[0] for rank in ranks]), next(one)[0])


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_epoch_reads_every_window_once_and_the_next_cuts_the_text_elsewhere(tmp_path, ranks):
    """500 tokens hold 71 windows of 7; an epoch has 70 of them, and begins somewhere in the first 10 tokens."""
    view = make_view(tmp_path, 500)
    batches = [
        TokenBatches(view, block_size=7, batch_size=10 // ranks, seed=1, rank=rank, world_size=ranks)
        for rank in range(ranks)
    ]
    assert batches[0].windows_an_epoch == 70
    epochs = [[next(b)[0] for _ in range(7) for b in batches] for _ in range(3)]
    read = [torch.cat(epoch).flatten() for epoch in epochs]
    for ids in read:
        assert ids.sort().values.tolist() == list(range(int(ids.min()), int(ids.min()) + 490))
        assert ids.min() < 10
    assert len({int(ids.min()) for ids in read}) > 1
    assert not torch.equal(read[0] - read[0].min(), read[1] - read[1].min())


def test_a_batch_may_be_larger_than_an_epoch(tmp_path):
    """Two windows an epoch, five a batch: 2 + 2 + 1, and on from there."""
    batches = TokenBatches(make_view(tmp_path, 23), block_size=7, batch_size=5, seed=1)
    drawn = [next(batches)[0][:, 0].tolist() for _ in range(2)]
    starts = [start for batch in drawn for start in batch]
    for a, b in zip(starts[::2], starts[1::2], strict=True):
        assert abs(a - b) == 7


def test_consecutive_windows_come_in_order_and_begin_again(tmp_path):
    batches = TokenBatches(make_view(tmp_path, 23), block_size=7, batch_size=2, seed=0, order="consecutive")
    assert [next(batches)[0][:, 0].tolist() for _ in range(3)] == [[0, 7], [14, 0], [7, 14]]


@pytest.mark.parametrize("count", [2, 7, 8, 9, 22, 36, 50])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_windows_predict_every_token_but_the_first_exactly_once(tmp_path, count, batch_size):
    batches = list(windows(make_view(tmp_path, count, 5), 7, batch_size))
    assert torch.cat([targets.flatten() for _, targets in batches]).tolist() == list(range(1, count))
    assert torch.cat([inputs.flatten() for inputs, _ in batches]).tolist() == list(range(count - 1))
    for inputs, _ in batches[:-1]:
        assert inputs.shape[1] == 7 and inputs.shape[0] <= batch_size
    if rest := (count - 1) % 7:
        assert batches[-1][0].shape == (1, rest)


def test_fixed_batches_are_fixed(tmp_path):
    view = make_view(tmp_path, 500)
    first, second = fixed_batches(view, 7, 5, 3, seed=4), fixed_batches(view, 7, 5, 3, seed=4)
    assert len(first) == 3 and all(map(same, first, second)) and not same(first[0], first[1])


def test_too_little_text_names_both_numbers_and_the_next_step(tmp_path):
    view = make_view(tmp_path, 20)
    message = "block_size=20 is longer than the text: the train split holds 20 tokens.*try block_size=10 or give more"
    with pytest.raises(UsageError, match=message):
        TokenBatches(view, block_size=20, batch_size=1, seed=0)
    TokenBatches(view, block_size=19, batch_size=1, seed=0)  # exactly one window
    with pytest.raises(UsageError, match="holds 1 tokens, and a prediction needs 2"):
        list(windows(make_view(tmp_path, 1), 7, 1))
    for wrong in ({"batch_size": 0}, {"block_size": 0}, {"rank": 2, "world_size": 2}):
        with pytest.raises(UsageError, match=f"{next(iter(wrong))}="):
            TokenBatches(view, **{"block_size": 7, "batch_size": 2, "seed": 0, **wrong})
