"""Word and phoneme error rate, by hand and against a table of all edits."""

from __future__ import annotations

import builtins
import json
import math
import random

import pytest

from glassformer.errors import DataError, MissingExtraError
from glassformer.evaluation.phonemes import pronunciation_errors


def test_by_hand():
    """read: nearest is R EH D, 1 edit of 3. cat: right. axe: K too little, 1 of 3. to: T UW is known, 0 of 2."""
    shown = pronunciation_errors(
        ["R EH T", "K AE T", "AE S", "T UW"],
        [["R IY D", "R EH D"], ["K AE T"], ["AE K S"], ["T AH", "T UW", "T IH"]],
    )
    assert shown.word_error_rate == 2 / 4 and shown.phoneme_error_rate == 2 / 11 and shown.n == 4
    # residuals of the words: 1, 0, 1, 0 minus 2/11 of 3, 3, 3, 2
    residuals = [1 - 6 / 11, -6 / 11, 1 - 6 / 11, -4 / 11]
    expected = 1.96 * math.sqrt(sum(r * r for r in residuals) / 3 * 4) / 11
    assert shown.phoneme_interval == pytest.approx(expected)
    assert shown.word_interval == pytest.approx((0.15, 0.85), abs=0.001)


def test_sounds_are_whole_symbols():
    """Letter by letter, AA1 and AO1 would be one edit of three."""
    shown = pronunciation_errors(["AA1"], [["AO1"]])
    assert shown.phoneme_error_rate == 1 and shown.phoneme_interval == math.inf
    assert json.loads(json.dumps(shown.to_dict(), allow_nan=False))["phoneme_interval"] is None


def test_no_answer_is_all_wrong_and_a_long_one_may_be_more():
    assert pronunciation_errors([""], [["K AE T"]]).phoneme_error_rate == 1
    assert pronunciation_errors(["T UW T UW T UW"], [["T UW"]]).phoneme_error_rate == 2


def edits(a: list[str], b: list[str]) -> int:
    """Wagner and Fischer 1974: the whole table."""
    table = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, table[i - 1][j - 1] + (x != y))
    return table[-1][-1]


def test_it_is_the_table_of_all_edits():
    draw = random.Random(0)
    words = [[" ".join(draw.choices("ABCD", k=draw.randint(1, 7))) for _ in range(4)] for _ in range(50)]
    shown = pronunciation_errors([ways[0] for ways in words], [ways[1:] for ways in words])
    nearest = [
        min(((edits(ways[0].split(), way.split()), way.split()) for way in ways[1:]), key=lambda pair: pair[0])
        for ways in words
    ]
    assert shown.phoneme_error_rate == sum(n for n, _ in nearest) / sum(len(way) for _, way in nearest)
    assert shown.word_error_rate == sum(n > 0 for n, _ in nearest) / 50


def test_bad_input_is_one_clear_line():
    with pytest.raises(DataError, match=r"^2 pronunciations and references of 1 words; give both for each$"):
        pronunciation_errors(["A", "B"], [["A"]])
    with pytest.raises(DataError, match=r"^word 1 has no reference; leave it out$"):
        pronunciation_errors(["A", "B"], [["A"], []])
    with pytest.raises(DataError, match=r"^no pronunciations to score"):
        pronunciation_errors([], [])


def test_without_rapidfuzz_the_pip_line_is_given(monkeypatch):
    importing = builtins.__import__

    def without(name, *rest):
        if name.startswith("rapidfuzz"):
            raise ImportError(name)
        return importing(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(MissingExtraError, match=r"pip install 'glassformer\[translate\]'"):
        pronunciation_errors(["A"], [["A"]])
