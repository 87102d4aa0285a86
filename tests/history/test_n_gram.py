"""Counted n-grams: by hand, against a plain reading of the formula, and as a model among models."""

from __future__ import annotations

from collections import Counter, defaultdict
from fractions import Fraction

import pytest
import torch
from toys import toy_ids

from glassformer.errors import DataError
from glassformer.history import NGram, build_history


def counted(ids, n_gram: int, vocab_size: int = 7) -> NGram:
    return build_history("n-gram", vocab_size=vocab_size, block_size=13, n_gram=n_gram).fit(torch.as_tensor(ids))


def probabilities(model: NGram, ids) -> torch.Tensor:
    return model(torch.as_tensor(ids)[None])[0].exp()


def test_by_hand():
    """a a b a b over the letters a, b, c.

    Pairs: aa 1, ab 2, ba 1, so two are seen once and one twice: D_2 = 2 / (2 + 2) = 1/2.
    Before a there were three different things (the beginning, a, b), before b one; nothing has count 2: D_1 = 1/2.
    p_1 = (3 - 1/2) / 4 + 1/2 * 2/4 * 1/3 = 17/24 for a, 5/24 for b, 2/24 for c.
    After a (three times, two followers): 1/2 / 3 + 1/2 * 2/3 * 17/24 = 29/72 for a, 41/72 for b, 2/72 for c.
    After b (once, one follower): 1/2 + 1/2 * 17/24 = 41/48 for a, 5/48 for b, 2/48 for c. After c, never seen: p_1.
    """
    model = counted([0, 0, 1, 0, 1], n_gram=2, vocab_size=3)
    assert model.discounts.tolist() == pytest.approx([1 / 2, 1 / 2])
    expected = [[29 / 72, 41 / 72, 2 / 72], [41 / 48, 5 / 48, 2 / 48], [17 / 24, 5 / 24, 2 / 24]]
    torch.testing.assert_close(probabilities(model, [0, 1, 2]), torch.tensor(expected))


def plain_kneser_ney(text: list[int], n_gram: int, vocab_size: int):
    """p(w | the tokens before), from tables of tuples and in exact fractions: the readable twin."""
    counts: list[Counter] = [Counter()]
    for k in range(1, n_gram + 1):
        runs = [tuple(text[i : i + k]) for i in range(len(text) - k + 1)]
        longer = {tuple(([-1, *text])[i : i + k + 1]) for i in range(len(text) - k + 1)}  # -1: the beginning
        counts.append(Counter(runs) if k == n_gram else Counter(run[1:] for run in longer))
    followers: dict[tuple, dict[int, int]] = defaultdict(dict)
    for table in counts:
        for run, count in table.items():
            followers[run[:-1]][run[-1]] = count

    def discount(k: int) -> Fraction:
        n1, n2 = (sum(c == times for c in counts[k].values()) for times in (1, 2))
        return Fraction(n1, n1 + 2 * n2) if n1 and n2 else Fraction(1, 2)

    def p(w: int, before: tuple) -> Fraction:
        lower = p(w, before[1:]) if before else Fraction(1, vocab_size)
        seen = followers.get(before)
        if not seen:
            return lower
        D, total = discount(len(before) + 1), sum(seen.values())
        return (max(seen.get(w, 0) - D, Fraction(0)) + D * len(seen) * lower) / total

    return lambda w, before: p(w, tuple(before[-(n_gram - 1) :] if n_gram > 1 else ()))


@pytest.mark.parametrize("n_gram", [1, 2, 3, 5])
def test_equals_the_plain_reading_of_the_formula(n_gram: int):
    text, asked = toy_ids(97, vocab_size=5).tolist(), toy_ids(23, vocab_size=7, seed=1).tolist()
    model, plain = counted(text, n_gram), plain_kneser_ney(text, n_gram, vocab_size=7)
    expected = [[float(plain(w, asked[: t + 1])) for w in range(7)] for t in range(23)]
    torch.testing.assert_close(probabilities(model, asked), torch.tensor(expected))


@pytest.mark.parametrize("n_gram", [1, 2, 5])
def test_gives_probabilities(n_gram: int):
    """They sum to one, also where nothing was seen, and nothing is impossible."""
    p = probabilities(counted(toy_ids(101, vocab_size=5), n_gram), toy_ids(29, vocab_size=7))
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(29))
    assert p.min() > 0


def test_a_text_shorter_than_the_longest_run_is_counted_as_far_as_it_goes():
    p = probabilities(counted([3, 4], n_gram=5), [3, 4])
    assert p[0].argmax() == 4
    torch.testing.assert_close(p.sum(dim=-1), torch.ones(2))


def test_the_tables_travel_with_the_state_dict():
    model, other = counted(toy_ids(71, vocab_size=7), 3), build_history("n-gram", vocab_size=7, block_size=13, n_gram=3)
    other.load_state_dict(model.state_dict())
    assert torch.equal(model(toy_ids(2, 11, vocab_size=7)), other(toy_ids(2, 11, vocab_size=7)))
    assert other.parameter_count() == model.parameter_count() > 7 + 30


def test_a_large_vocabulary_fits():
    """Runs are numbered, not spelled: 50,257 ** 6 has no place in 64 bits."""
    text = toy_ids(997, vocab_size=50_257)
    p = probabilities(counted(text, n_gram=6, vocab_size=50_257), text[:11])
    assert p.argmax(dim=-1)[:10].tolist() == text[1:11].tolist()


def test_an_empty_text_is_refused():
    with pytest.raises(DataError, match=r"^there is nothing to count in an empty text; give one token or more$"):
        counted([], 3)


def test_what_was_counted_is_forgotten():
    """A fresh model and one that is reset know nothing; a model that counts another text knows that one alone."""
    once, twice = counted(toy_ids(50, vocab_size=7), 3), counted(toy_ids(50, vocab_size=7, seed=5), 3)
    twice.fit(toy_ids(50, vocab_size=7))
    assert torch.equal(once(toy_ids(2, 11, vocab_size=7)), twice(toy_ids(2, 11, vocab_size=7)))
    twice.init_weights()
    for model in (twice, build_history("n-gram", vocab_size=7, block_size=13, n_gram=3)):
        torch.testing.assert_close(probabilities(model, [1, 2, 3]), torch.full((3, 7), 1 / 7))
