"""Error rates of transcripts against hand-counted ones, and the normaliser."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import DataError
from glassformer.evaluation.speech import plain_words, speech_errors

pytest.importorskip("jiwer", reason="needs the package jiwer")


@pytest.mark.parametrize(("text", "plain"), [
    ("Press 'one' -- it's FREE!", "press one it's free"), ("", ""), ("3.5, or so", "3 5 or so"),
    ("don\N{RIGHT SINGLE QUOTATION MARK}t_stop", "don't stop"), ("'Été'", "été"),
])  # fmt: skip
def test_plain_words(text: str, plain: str):
    assert plain_words(text) == plain


@given(st.text(max_size=60))
@settings(deadline=None)
def test_plain_words_are_plain(text: str):
    once = plain_words(text)
    assert plain_words(once) == once and "  " not in once and once == once.strip()


def test_rates_are_those_counted_by_hand():
    """One substituted, one missing and two added words for 8; case, commas and an empty reference do not count."""
    found = speech_errors(
        ["the cat sat", "a dog", "oh, HELLO there you", "noise"], ["the cat lay", "a big dog", "Hello there", "..."]
    )
    assert (found.n, found.n_words) == (3, 8)
    assert found.words.rate == pytest.approx(4 / 8)
    edits = [("the cat lay", "the cat sat"), ("a big dog", "a dog"), ("hello there", "oh hello there you")]
    letters = sum(distance(a, b) for a, b in edits) / sum(len(a) for a, _ in edits)
    assert found.characters.rate == pytest.approx(letters)
    assert found.words.low <= found.words.rate <= found.words.high and found.words.low < found.words.high
    assert "50.00 %" in found.lines()[0]


def distance(a: str, b: str) -> int:
    row = np.arange(len(b) + 1)
    for i, x in enumerate(a, 1):
        before, row = row, np.empty_like(row)
        row[0] = i
        for j, y in enumerate(b, 1):
            row[j] = min(row[j - 1] + 1, before[j] + 1, before[j - 1] + (x != y))
    return int(row[-1])


def test_what_cannot_be_counted():
    with pytest.raises(DataError, match="one for each"):
        speech_errors(["a"], ["a", "b"])
    with pytest.raises(DataError, match="no reference has words"):
        speech_errors(["a"], ["..."])
