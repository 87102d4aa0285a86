"""The key-value cache: append, advance, rewind, reorder, fork. Layers 2, rows 3, heads 2, width 5, capacity 7."""

from __future__ import annotations

import pytest
import torch

from glassformer.errors import UsageError
from glassformer.layers import KVCache


def toy_cache(length: int = 0) -> KVCache:
    """Filled so that a key is 100 row + position, and a value its negative."""
    cache = KVCache(n_layer=2, batch_size=3, n_kv_head=2, head_width=5, capacity=7)
    if length:
        fill(cache, length)
    return cache


def fill(cache: KVCache, n: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    rows, at = torch.arange(cache.keys.shape[1]), torch.arange(cache.length, cache.length + n)
    k = (100.0 * rows[:, None] + at)[:, None, :, None].expand(-1, 2, -1, 5)
    got = [cache.append(layer, k, -k) for layer in range(2)]
    cache.advance(n)
    return got


def positions(cache: KVCache, layer: int = 1) -> list[list[float]]:
    """What is held, row by row, read off one head and channel."""
    return cache.keys[layer, :, 1, : len(cache), 4].tolist()


def test_append_returns_everything_so_far():
    cache = toy_cache()
    fill(cache, 3)
    (keys, values), second = fill(cache, 2)
    assert keys.shape == values.shape == (3, 2, 5, 5) and len(cache) == 5
    assert keys[2, 1, :, 4].tolist() == [200, 201, 202, 203, 204]
    assert torch.equal(values, -keys) and torch.equal(keys, second[0])


def test_remember_keeps_the_tokens_and_returns_the_last_few_before_them():
    """Rows 0, 1, 2 hold tokens 100 row + position; they go where keys and values go."""
    cache = toy_cache()
    ids = 100 * torch.arange(3)[:, None] + torch.arange(7)
    assert cache.remember(ids[:, :4], reach=2).shape == (3, 0)
    cache.advance(4)
    assert cache.remember(ids[:, 4:5], reach=2).tolist() == [[2, 3], [102, 103], [202, 203]]
    cache.advance(1)
    assert torch.equal(cache.remember(ids[:, 5:6], reach=9), ids[:, :5])
    with pytest.raises(UsageError, match="the cache holds 7 positions and 8 are asked for; rewind it"):
        cache.remember(ids[:, :3], reach=2)
    cache.rewind(3)
    cache.reorder(torch.tensor([2, 0]))
    assert cache.fork(2).remember(ids[:1, :1].expand(4, 1), reach=1).tolist() == [[202], [202], [2], [2]]


def test_rewind_forgets_the_end_and_goes_backwards_only():
    cache = toy_cache(5)
    cache.rewind(2)
    fill(cache, 1)
    assert positions(cache)[0] == [0, 1, 2]
    for length in (-1, 4):
        with pytest.raises(UsageError, match=f"cannot rewind a cache of 3 positions to {length}"):
            cache.rewind(length)


def test_reorder_may_repeat_and_drop_rows():
    cache = toy_cache(2)
    cache.reorder(torch.tensor([2, 0, 2, 2]))
    assert positions(cache) == [[200, 201], [0, 1], [200, 201], [200, 201]]
    assert torch.equal(cache.values, -cache.keys)


def test_as_many_rows_as_before_change_places_in_place():
    """Row 0 and 2 change places, then one becomes a copy: also what is crossed, and the tokens."""
    cache = toy_cache(2)
    cache.tokens[:] = torch.arange(3)[:, None]
    crossed = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 11, 5)
    cache.crossed[1] = crossed.clone(), -crossed
    memory = cache.keys.data_ptr()
    cache.reorder(torch.tensor([2, 1, 0]))
    assert positions(cache) == [[200, 201], [100, 101], [0, 1]]
    cache.reorder(torch.tensor([0, 0, 2]))
    assert positions(cache) == [[200, 201], [200, 201], [0, 1]] and cache.keys.data_ptr() == memory
    assert torch.equal(cache.values, -cache.keys) and cache.tokens[:, 0].tolist() == [2, 2, 0]
    keys, values = cache.crossed[1]
    assert keys[:, 1, 10, 4].tolist() == [2, 2, 0] and torch.equal(values, -keys)


def test_fork_gives_an_independent_copy_with_every_row_n_times():
    cache = toy_cache(2)
    twin = cache.fork(2)
    assert positions(twin) == [[0, 1], [0, 1], [100, 101], [100, 101], [200, 201], [200, 201]]
    fill(twin, 3)
    twin.keys.zero_()
    assert len(cache) == 2 and positions(cache)[2] == [200, 201]


def test_what_does_not_fit_is_refused_and_nothing_is_written():
    cache = toy_cache(6)
    before = cache.keys.clone()
    k = torch.ones(3, 2, 2, 5)
    with pytest.raises(UsageError, match="the cache holds 7 positions and 8 are asked for"):
        cache.append(0, k, k)
    assert torch.equal(cache.keys, before) and len(cache) == 6


def test_it_shows_itself():
    """2 layers x 3 rows x 2 heads x 7 positions x 5 channels x 4 bytes, twice (keys and values)."""
    cache = toy_cache(5)
    assert cache.n_bytes == 2 * 2 * 3 * 2 * 7 * 5 * 4
    bar = "#" * 14 + "." * 6  # 5/7 of 20
    assert repr(cache) == f"KVCache([{bar}] 5/7 positions, 3 sequences, 2 layers x 2 heads x 5, 0.0 MiB)"
    assert bool(toy_cache()), "an empty cache is no missing one"
