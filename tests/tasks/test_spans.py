"""Removed spans: what goes out is in the target, in order, and put back it gives the text."""

from __future__ import annotations

import math
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glassformer.errors import UsageError
from glassformer.tasks import Spans
from glassformer.tasks.spans import random_spans

START, END = 0, 1
SENTINELS = list(range(99, 69, -1))  # T5 counts them down from the end of the vocabulary
TEXT = "Thank you for inviting me to your party last week"


def spans(**changes) -> Spans:
    return Spans(**{"sentinels": SENTINELS, "start_token": START, "end_token": END, **changes})


def stretches(removed: np.ndarray) -> list[tuple[bool, int]]:
    return [(bool(out), len(list(group))) for out, group in groupby(removed)]


class Chosen(Spans):
    """With the gaps of the paper's figure: words 2, 3 and 8."""

    def remove(self, ids, random):
        removed = np.isin(np.arange(len(ids)), [2, 3, 8])
        return [*self._with_sentinels(ids, removed), self.end_token], self._with_sentinels(ids, ~removed)


def test_the_example_of_the_paper():
    """Raffel et al. 2019, figure 2, word for word. It keeps the last word, for which a third sentinel stands; spans
    that are drawn end with a removed one, so that there is none."""
    asked = Chosen(sentinels=SENTINELS, start_token=START, end_token=END)
    names = {START: "<start>", END: "<end>", 99: "<extra_id_0>", 98: "<extra_id_1>", 97: "<extra_id_2>"}
    names |= {10 + i: word for i, word in enumerate(TEXT.split())}
    read = lambda ids: " ".join(names[i] for i in ids)  # noqa: E731
    source, _, target_in, target_out = asked.collate([range(10, 20)], np.random.default_rng(0))
    assert read(source[0].tolist()) == "Thank you <extra_id_0> me to your party <extra_id_1> week <end>"
    assert read(target_out[0].tolist()) == "<extra_id_0> for inviting <extra_id_1> last <extra_id_2> <end>"
    assert read(target_in[0].tolist()) == "<start> <extra_id_0> for inviting <extra_id_1> last <extra_id_2>"
    assert read(asked.decode(source[0].tolist(), target_out[0].tolist())) == TEXT


@given(
    ids=st.lists(st.integers(2, 60), min_size=1, max_size=90),
    density=st.floats(0.01, 0.99),
    mean_length=st.floats(1, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_put_back_the_spans_give_the_text(ids, density, mean_length, seed):
    """Any text, any settings; and no token is on both sides or on neither."""
    asked = spans(sentinels=range(1000, 1100), noise_density=density, mean_length=mean_length)
    source, target = asked.remove(ids, np.random.default_rng(seed))
    assert asked.decode(source, [*target, END]) == ids
    words = [token for token in [*source, *target] if 1 < token < 1000]
    assert sorted(words) == sorted(ids) and source.count(END) == 1 and source[-1] == END
    gaps = [token for token in source if token >= 1000]
    assert gaps == list(range(1000, 1000 + len(gaps)))
    if len(ids) > 1:
        assert [token for token in target if token >= 1000] == gaps and target[0] == 1000


@pytest.mark.parametrize(
    ("length", "removed", "number"), [(512, 77, 26), (114, 17, 6), (20, 3, 1), (10, 2, 1), (2, 1, 1)]
)
def test_how_much_is_removed_is_t5s_arithmetic(length: int, removed: int, number: int):
    """round(0.15 T) tokens in round(that / 3) spans, each at least one; a kept stretch first, a removed one last."""
    for seed in range(20):
        runs = stretches(random_spans(length, 0.15, 3.0, np.random.default_rng(seed)))
        assert len(runs) == 2 * number and not runs[0][0] and runs[-1][0]
        assert sum(n for out, n in runs if out) == removed and sum(n for _, n in runs) == length


def test_one_token_is_kept_and_dense_noise_finds_room():
    """Where T5's code would want 45 spans between 10 kept tokens, there are 10."""
    random = np.random.default_rng(0)
    assert random_spans(1, 0.15, 3.0, random).tolist() == [False]
    assert [out for out, _ in stretches(random_spans(100, 0.9, 2.0, random))] == [False, True] * 10


def test_every_way_of_cutting_is_equally_likely():
    """4 removed tokens in 2 spans, 6 kept in 2: 3 x 5 ways, 15,000 draws, 1,000 each, deviation 30.6; 6 deviations in
    15 places: a false alarm once in 30 million (and the seed is set)."""
    random, seen = np.random.default_rng(0), {}
    for _ in range(15_000):
        runs = tuple(n for _, n in stretches(random_spans(10, 0.4, 2.0, random)))
        seen[runs] = seen.get(runs, 0) + 1
    assert len(seen) == 15
    assert all(abs(n - 1_000) < 6 * math.sqrt(1_000 * 14 / 15) for n in seen.values())


def test_the_mean_span_has_the_length_that_was_asked_for():
    """round(75 / L) spans of 75 tokens together: 25 of 3, 15 of 5."""
    for mean, number in ((3.0, 25), (5.0, 15)):
        runs = stretches(random_spans(500, 0.15, mean, np.random.default_rng(0)))
        assert sum(out for out, _ in runs) == number


def test_a_wrong_answer_of_a_model_does_no_harm():
    """Sentinels left out, twice, unknown; words before the first; words after the end."""
    source = [10, 99, 11, 98, 12, END]
    assert spans().decode(source, [98, 5, END]) == [10, 11, 5, 12]
    assert spans().decode(source, [7, 99, 5, 99, 6, 97, 8, END, 98, 9]) == [10, 5, 6, 11, 12]
    assert spans().decode(source, []) == [10, 11, 12]


def test_too_few_sentinels_are_one_clear_line():
    with pytest.raises(UsageError, match=r"^a text of 200 tokens has 10 gaps and there are 4 sentinels; give shorter"):
        spans(sentinels=[99, 98, 97, 96]).remove(range(200), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"noise_density": 0.0}, r"^task\.noise_density=0\.0 is too small; use more than 0$"),
        ({"noise_density": 1.0}, r"^task\.noise_density=1\.0 is too large; use less than 1$"),
        ({"mean_length": 0.5}, r"^task\.mean_length=0\.5 is too small; use 1 or more$"),
        ({"label_smoothing": 0.1}, r"^unknown key task\.label_smoothing"),
    ],
)
def test_impossible_settings_are_one_clear_line(settings, message):
    with pytest.raises(UsageError, match=message):
        spans(**settings)


def test_it_is_trained_without_smoothing():
    assert spans().label_smoothing == 0.0
