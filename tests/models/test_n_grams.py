"""N-grams in the stem: which rows are looked up, where the text begins, and the same with a cache as without."""

from __future__ import annotations

import pytest
import torch
from toys import toy_ids, toy_model

from glassformer.generation import generate
from glassformer.models.stems import NGrams
from glassformer.processors.tokenizers import TOKENIZERS

# A vocabulary of three: 0, 1, 2. What stands before the text counts as a fourth, 3.


def numbered(n: int, rows: int = 1000) -> NGrams:
    """Row r of the joint table for length L holds the vector (r, L); the tables `back` hold zeros."""
    grams = NGrams(n=n, rows=rows, vocab_size=3, n_embd=2)
    with torch.no_grad():
        for table in grams.back:
            table.weight.zero_()
        for length, table in enumerate(grams.joint, 2):
            table.weight[:, 0] = torch.arange(float(table.num_embeddings))
            table.weight[:, 1] = length
    return grams


def test_each_token_back_has_a_table_of_its_own():
    """Row r of the table for distance d holds 10^d (r + 1): 1 back reads in the tens, 2 back in the hundreds."""
    grams = NGrams(n=3, rows=0, vocab_size=3, n_embd=1)
    with torch.no_grad():
        for distance, table in enumerate(grams.back, 1):
            table.weight[:, 0] = 10.0**distance * torch.arange(1, 5)
    assert grams(torch.tensor([[1, 2, 0]])).flatten().tolist() == [440, 420, 230]


def test_each_n_gram_has_a_row_of_its_own_while_there_is_room():
    """Newest token first, in base 4: (1, nothing) is 1 * 4 + 3, (2, 1) is 2 * 4 + 1, (0, 2) is 0 * 4 + 2."""
    assert numbered(2)(torch.tensor([[1, 2, 0]])).tolist() == [[[7, 2], [9, 2], [2, 2]]]
    assert len(numbered(2).joint[0].weight) == 16


def test_longer_ones_are_added():
    """The last token's 3-gram (0, 2, 1) is 0 * 16 + 2 * 4 + 1 = 9; with its 2-gram, row 2, that makes 11, 2 + 3 = 5."""
    assert numbered(3)(torch.tensor([[1, 2, 0]]))[0, 2].tolist() == [11, 5]


def test_where_there_is_no_room_a_hash_chooses_the_row():
    """The row, worked out with Python's own integers."""
    grams = numbered(3, rows=17)  # 16 2-grams fit, 64 3-grams do not
    product = (0 * 16 + 2 * 4 + 1) * 0x9E3779B97F4A7C15 % 2**64
    signed = product - 2**64 if product >= 2**63 else product
    assert grams(torch.tensor([[1, 2, 0]]))[0, 2, 0] == 2 + (signed >> 24) % 17


def test_the_hash_spreads():
    """61^3 = 226,981 trigrams over 101 rows: 2,247 a row. A fair draw strays by 6 deviations (284) once in 5e6."""
    rows = NGrams(n=3, rows=101, vocab_size=60, n_embd=1)._hash(torch.arange(61**3), 101)
    counts = torch.bincount(rows, minlength=101)
    assert len(counts) == 101 and (counts - 61**3 / 101).abs().max() < 284


def test_tokens_before_the_text_count_when_they_are_given():
    grams, ids = NGrams(n=3, rows=17, vocab_size=3, n_embd=2), torch.tensor([[1, 2, 0, 2, 1]])
    whole = grams(ids)
    for first in range(1, 5):
        before = ids[:, max(0, first - 2) : first]
        assert torch.equal(grams(ids[:, first:], before), whole[:, first:])


@pytest.mark.parametrize("window", ["half", "exact"])
def test_generation_with_a_cache_equals_generation_without(window: str):
    """29 tokens through 13 positions, two samples from one prompt: prefill, fork, decode, slide."""
    model = toy_model("modern", n_gram=3, n_gram_rows=307, vocab_size=26)
    tokenizer = TOKENIZERS["characters"](["abcdefghijklmnopqrstuvwxyz"])
    settings = {"max_new_tokens": 29, "temperature": 1.0, "seed": 3, "samples": 2, "window": window}
    with_cache, without = (
        [c.text for c in generate(model, tokenizer, "hello", **settings, use_cache=use)] for use in (True, False)
    )
    assert with_cache == without


def test_unit_init_starts_the_joint_ones_at_zero():
    model = toy_model("modern", n_gram=2, n_gram_rows=7, tied_head=False)
    model.init_weights("unit")
    grams = model.embedding.n_grams
    assert not grams.joint[0].weight.any()
    assert float(grams.back[0].weight.detach().std()) == pytest.approx(0.15, rel=0.1)  # of 2,604 draws: 7 deviations


def test_a_tap_hears_what_they_add():
    from glassformer.taps import listening

    model, heard = toy_model("modern", n_gram=2), []
    with listening(model, "embedding.n_grams.sum", lambda name, x: heard.append(x.shape)):
        model(toy_ids(2, 7))
    assert heard == [(2, 7, 42)]
