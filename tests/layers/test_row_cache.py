"""Rows that come and go: each reads what it would read alone. Layers 2, heads 6 in 3 groups of 2, width 4."""

from __future__ import annotations

import pytest
import torch

from glassformer.errors import UsageError
from glassformer.layers import KVCache
from glassformer.models import Decoder, ModelConfig

KINDS = {
    "classic": {"family": "classic"},
    "grouped": {"family": "modern", "n_kv_head": 3},
    "n-grams": {"family": "modern", "n_gram": 3, "n_gram_rows": 50},
    "alibi": {"family": "modern", "positions": "alibi", "n_kv_head": 3},
    "relative": {"family": "modern", "positions": "relative"},
    "window": {"family": "modern", "patterns": ("window(3) & causal", "causal"), "n_kv_head": 2},
    "sinks": {"family": "modern", "attention_sinks": True, "n_kv_head": 3},
    "softcap": {"family": "modern", "attention_softcap": 5.0, "n_kv_head": 3},
}


def toy(**fields) -> Decoder:
    torch.manual_seed(5)
    config = {"vocab_size": 13, "block_size": 1000, "n_layer": 2, "n_head": 6, "n_embd": 24}
    model = Decoder(ModelConfig.make(**config, **fields)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def texts(*lengths: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(13, (length,), generator=generator) for length in lengths]


@pytest.mark.parametrize("kind", KINDS)
@torch.inference_mode()
def test_rows_of_different_lengths_equal_each_row_alone(kind):
    model, rows = toy(**KINDS[kind]), texts(1, 17, 8)
    cache = model.new_row_cache(max_rows=5, max_positions=5 * 256)
    cache.resize(3, 40)
    for number, ids in enumerate(rows):
        model(ids[None], cache=cache.rows(number, number + 1))
    for step in range(4):
        new = torch.tensor([[step], [step + 3], [step + 5]])
        logits = model(new, cache=cache.rows(0, 3))
        rows = [torch.cat((ids, token)) for ids, token in zip(rows, new, strict=True)]
        for number, ids in enumerate(rows):
            alone = model(ids[None])[0, -1]
            torch.testing.assert_close(logits[number, 0], alone, atol=2e-6, rtol=1e-5)
    assert cache.lengths == [5, 21, 12]


@torch.inference_mode()
def test_one_row_equals_the_plain_cache_bit_for_bit():
    model, (ids,) = toy(family="modern", n_kv_head=3), texts(11)
    plain, rows = model.new_cache(), model.new_row_cache(4, 4 * 256)
    rows.resize(2, 40)
    for piece in (ids[:7], ids[7:8], ids[8:]):
        assert torch.equal(model(piece[None], cache=plain), model(piece[None], cache=rows.rows(1, 2)))
    assert isinstance(plain, KVCache) and rows.lengths == [0, 11]


@torch.inference_mode()
def test_rows_move_are_copied_and_rewound():
    model, (a, b) = toy(family="modern", n_kv_head=3), texts(9, 4)
    cache = model.new_row_cache(4, 4 * 512)
    cache.resize(2, 20)
    model(a[None], cache=cache.rows(0, 1))
    model(b[None], cache=cache.rows(1, 2))
    cache.swap(0, 1)
    assert cache.lengths == [4, 9] and cache.tokens[0, :4].equal(b) and cache.tokens[1, :9].equal(a)
    token = torch.tensor([[2]])
    expected = model(torch.cat((a, token[0]))[None])[0, -1]
    cache.resize(3, 300)  # both grow: more rows, more positions
    assert cache.capacity == 512
    cache.copy(1, 2, 9)
    for row in (1, 2):
        got = model(token, cache=cache.rows(row, row + 1))[0, -1]
        torch.testing.assert_close(got, expected, atol=1e-6, rtol=1e-5)
    cache.rewind(2, 3)
    got = model(a[3:][None], cache=cache.rows(2, 3))[0, -1]
    torch.testing.assert_close(got, model(a[None])[0, -1], atol=1e-6, rtol=1e-5)


def test_its_memory_is_bounded():
    cache = toy().new_row_cache(max_rows=3, max_positions=1024)
    assert cache.fits(2, 512) and cache.fits(1, 1024)
    assert not cache.fits(3, 512) and not cache.fits(4, 10) and not cache.fits(1, 1025)
    cache.resize(2, 500)
    assert cache.n_bytes == cache.max_bytes == 2 * 2 * 2 * 6 * 512 * 4 * 4
    with pytest.raises(UsageError, match="cannot hold 3 rows of 400"):
        cache.resize(3, 400)
    assert str(cache) == "RowCache(2 rows, 0 positions filled, 0.4 of at most 0.4 MiB)"


@torch.inference_mode()
def test_what_another_row_left_behind_is_not_seen():
    """A row that is short looks at places that a longer one has filled before it."""
    model, (long, short) = toy(family="modern", n_kv_head=3), texts(15, 2)
    cache = model.new_row_cache(4, 4 * 256)
    cache.resize(2, 40)
    for row in (0, 1):
        model(long[None], cache=cache.rows(row, row + 1))
    cache.rewind(0, 0)
    model(short[None], cache=cache.rows(0, 1))
    logits = model(torch.tensor([[7], [7]]), cache=cache.rows(0, 2))
    alone = model(torch.cat((short, torch.tensor([7])))[None])[0, -1]
    torch.testing.assert_close(logits[0, 0], alone, atol=2e-6, rtol=1e-5)
