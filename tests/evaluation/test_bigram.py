"""A table of pairs: by hand, against a direct computation, and the figure that the README tells."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest

from glassformer.data import TokenStore
from glassformer.data.prepare import prepare
from glassformer.data.token_store import TokenView
from glassformer.errors import DataError
from glassformer.evaluation import bigram, bigram_loss
from glassformer.processors.tokenizers import TOKENIZERS


def view(ids) -> TokenView:
    array = np.asarray(ids, dtype=np.uint16)
    return TokenView("test", [array[:3], array[3:]], np.zeros(1, dtype=np.uint64), len(array))


def test_by_hand_with_one_added(monkeypatch):
    """0 1 0 1 0 0: after 0 came 1 twice and 0 once, after 1 came 0 twice. V = 2.

    So p(1|0) = 3/5, p(0|0) = 2/5, p(0|1) = 3/4; asked: 0 1, 1 0, 0 0.
    """
    monkeypatch.setattr(bigram, "ENOUGH", 1)  # five pairs and four cells
    loss = bigram_loss(view([0, 1, 0, 1, 0, 0]), view([0, 1, 0, 0]), vocab_size=2)
    assert loss == pytest.approx(-(math.log(3 / 5) + math.log(3 / 4) + math.log(2 / 5)) / 3)


def kneser_ney(train: list[int], asked: list[int], V: int) -> float:
    """The readable twin: plain dictionaries, one probability at a time."""
    pairs = Counter(pairwise(train))
    D = sum(c == 1 for c in pairs.values())
    D = D / (D + 2 * sum(c == 2 for c in pairs.values()))

    def p(b: int, a: int) -> float:
        followers = {y: c for (x, y), c in pairs.items() if x == a}
        q = (sum(y == b for _, y in pairs) + 1) / (len(pairs) + V)
        if not followers:
            return q
        return (max(followers.get(b, 0) - D, 0) + D * len(followers) * q) / sum(followers.values())

    assert all(sum(p(b, a) for b in range(V)) == pytest.approx(1) for a in range(V))
    return -sum(math.log(p(b, a)) for a, b in pairwise(asked)) / (len(asked) - 1)


def test_kneser_ney_equals_the_readable_twin():
    """The twin's probabilities sum to one; the last token of the vocabulary was never seen."""
    random = np.random.default_rng(0)
    train, asked = random.zipf(1.5, 200) % 13, random.integers(0, 17, 61)
    ours = bigram_loss(view(train), view(asked), vocab_size=17)
    assert ours == pytest.approx(kneser_ney(train.tolist(), asked.tolist(), 17), rel=1e-12)


def test_a_regular_text_and_a_large_vocabulary_have_finite_losses():
    assert 0 < bigram_loss(view([0, 1] * 30), view([0, 1, 2, 0]), vocab_size=5) < 20  # no discount can be estimated
    train = view(np.arange(60000) % 59999)
    assert math.isfinite(bigram_loss(train, view([5, 6, 7, 60001]), vocab_size=1_000_000))


def test_only_so_many_tokens_are_read():
    one, two = view([0, 1, 2, 0, 1, 2, 2]), view([0, 1, 2, 0, 1, 2, 2, 2, 2, 2, 2])
    asked = view([0, 1, 2, 2])
    assert bigram_loss(two, asked, 3, max_tokens=7) == bigram_loss(one, asked, 3) != bigram_loss(two, asked, 3)


def test_no_pairs_are_an_error():
    with pytest.raises(DataError, match="two tokens in each split; give more"):
        bigram_loss(view([1, 2, 3]), view([1]), vocab_size=5)


@pytest.mark.parametrize(("kind", "shown", "guess"), [("characters", 2.482, math.log(65)), ("bytes", 2.482, 5.55)])
def test_tiny_shakespeare(shakespeare, kind, shown, guess):
    """Characters: the figure in the README. Bytes are the same text (it is ASCII) with 191 bytes that never come, which
    Kneser-Ney gives almost nothing."""
    text = shakespeare.read_text(encoding="utf-8")
    tokenizer = TOKENIZERS[kind](text) if kind == "characters" else TOKENIZERS[kind]()
    store = prepare(str(shakespeare), tokenizer)
    assert isinstance(store, TokenStore)
    loss = bigram_loss(store.split("train"), store.split("validation"), tokenizer.vocab_size)
    assert loss == pytest.approx(shown, abs=0.004 if kind == "bytes" else 0.0005) and loss < guess
