"""Scores of word vectors against a walk from question to question, and rank correlation against known values."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from glassformer.errors import DataError
from glassformer.history.word_tests import Likeness, Question, WordTests
from glassformer.history.word_vectors import AnalogyScore, score_word_vectors

N, C = 53, 7
WORDS = [f"w{i}" for i in range(N)]


def questions(n: int = 600) -> list[Question]:
    random = np.random.default_rng(1)
    return [Question(*(WORDS[i].upper() for i in random.choice(N, 4, replace=False))) for _ in range(n)]


def test_analogies_one_by_one():
    """More questions than are asked at once; half of the answers are planted so that they are right now and then."""
    table = torch.randn(N, C, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    unit = table / table.norm(dim=1, keepdim=True)
    place = {word: i for i, word in enumerate(WORDS)}
    asked, right, among_all = [], 0, 0
    for number, (a, b, c, d) in enumerate(questions()):
        i, j, k = (place[word.lower()] for word in (a, b, c))
        cosines = torch.nn.functional.cosine_similarity(unit, (unit[j] - unit[i] + unit[k])[None])
        order = cosines.argsort(descending=True).tolist()
        best = next(row for row in order if row not in (i, j, k))
        answer = WORDS[best if number % 2 else order[0]] if number % 3 else d.lower()
        asked.append(Question(a, b, c, answer.upper()))
        right += answer == WORDS[best]
        among_all += answer == WORDS[order[0]]
    unknown = [Question("w1", "w2", "w3", "elsewhere")] * 5
    tests = WordTests({}, {"family": asked[:400] + unknown, "gram1": asked[400:]})
    scores = score_word_vectors(WORDS, table.float(), tests)
    assert scores.analogies["all"] == AnalogyScore(right, among_all, 600, 605)
    assert 100 < among_all != right > 100
    assert scores.analogies["meaning"].n == 400 and scores.analogies["form"] == scores.sections["gram1"]
    assert any("600 of 605 known" in line for line in scores.lines())


def test_likeness_is_the_rank_correlation_of_cosines():
    table = torch.randn(N, C, generator=torch.Generator().manual_seed(2))
    random = np.random.default_rng(3)
    pairs = [Likeness(*(WORDS[i] for i in random.choice(N, 2, replace=False)), random.integers(10)) for _ in range(61)]
    scores = score_word_vectors(WORDS, table, WordTests({"some": [*pairs, Likeness("w1", "nowhere", 3.0)]}, {}))
    x = table.double().numpy()
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    cosines = np.array([x[int(a[1:])] @ x[int(b[1:])] for a, b, _ in pairs])
    expected = spearmanr(cosines, [s for _, _, s in pairs]).statistic
    got = scores.likeness["some"]
    assert (got.n, got.n_all) == (61, 62) and got.rho == pytest.approx(expected, abs=1e-6)


def test_nothing_known_is_no_score():
    tests = WordTests({"some": [Likeness("x", "y", 1.0)]}, {"family": [Question("a", "b", "c", "d")]})
    scores = score_word_vectors(WORDS, torch.randn(N, C), tests)
    equal = WordTests({"some": [Likeness("w1", "w2", 1.0), Likeness("w3", "w4", 1.0)]}, {})
    assert score_word_vectors(WORDS, torch.randn(N, C), equal).likeness["some"].rho is None
    assert scores.likeness["some"].rho is None and scores.analogies["all"].share is None
    assert scores.lines() == ["some           -  (Spearman's rho; 0 of 1 pairs known)"]
    assert scores.to_dict()["analogies"]["family"]["n_all"] == 1
    with pytest.raises(DataError, match="53 words and 52 vectors"):
        score_word_vectors(WORDS, torch.randn(N - 1, C), tests)


def test_of_words_that_differ_in_case_or_a_space_the_first_counts():
    table = torch.eye(4)
    tests = WordTests({"some": [Likeness("king", "queen", 1.0), Likeness("king", "Man", 2.0)]}, {})
    assert score_word_vectors([" king", "King", "queen", " man"], table, tests).likeness["some"].n == 2
