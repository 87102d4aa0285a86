"""Filter and sample: hand-made distributions, transformers' own filters, and sampled frequencies."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from glassformer.errors import UsageError
from glassformer.generation import Sampling, filtered_probabilities, sample

P = [0.5, 0.25, 0.125, 0.0625, 0.0625]  # sums to 1 exactly


def filtered(p: list[float] = P, context: list[int] | None = None, **settings: float) -> list[float]:
    logits = torch.tensor([p], dtype=torch.float64).log()
    ids = None if context is None else torch.tensor([context])
    return filtered_probabilities(logits, Sampling(**settings), ids)[0].tolist()


def near(expected: list[float]):
    return pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        *((off, P) for off in ({}, {"top_k": 5}, {"top_k": 99}, {"top_p": 1.0}, {"min_p": 0.0})),
        ({"top_k": 1}, [1, 0, 0, 0, 0]),
        ({"top_k": 2}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"top_k": 4}, P),  # the fourth and the fifth are equal: neither is worse
        ({"top_p": 0.5}, [1, 0, 0, 0, 0]),  # the fewest that reach p
        ({"top_p": 0.51}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"top_p": 0.75}, [2 / 3, 1 / 3, 0, 0, 0]),
        ({"top_p": 0.76}, [4 / 7, 2 / 7, 1 / 7, 0, 0]),
        ({"top_p": 1e-9}, [1, 0, 0, 0, 0]),  # the best always stays
        ({"top_p": 0.7, "p": [0.0625, 0.5, 0.0625, 0.125, 0.25]}, [0, 2 / 3, 0, 0, 1 / 3]),  # wherever they stand
        ({"min_p": 0.5}, [2 / 3, 1 / 3, 0, 0, 0]),  # likely enough beside the best
        ({"min_p": 0.51}, [1, 0, 0, 0, 0]),
        ({"min_p": 0.1}, P),
        ({"temperature": 0.5}, [p * p / sum(p * p for p in P) for p in P]),  # a power of 1 / temperature
        ({"temperature": 2.0}, [math.sqrt(p) / sum(math.sqrt(p) for p in P) for p in P]),
        ({"temperature": 0, "p": [0.1, 0.4, 0.1, 0.4]}, [0, 1, 0, 0]),  # the first of equals
        *(({"temperature": almost_0}, [1, 0, 0, 0, 0]) for almost_0 in (0.0, 1e-3, 1e-40, 5e-324)),
    ],
)
def test_filters_of_hand_made_distributions(settings: dict, expected: list[float]):
    assert filtered(**settings) == near(expected)


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    """Logits 2, -1, 1, 1 with penalty 2: those seen (0 and 1, one of them twice) become 1 and -2."""
    logits = torch.tensor([[2.0, -1.0, 1.0, 1.0]])
    got = filtered_probabilities(logits, Sampling(repetition_penalty=2.0), torch.tensor([[0, 1, 0]]))
    torch.testing.assert_close(got, torch.tensor([[1.0, -2.0, 1.0, 1.0]]).softmax(-1))
    assert logits.tolist() == [[2, -1, 1, 1]]  # the caller's tensor is not touched
    greedy = filtered_probabilities(logits, Sampling(repetition_penalty=3.0, temperature=0), torch.tensor([[0]]))
    assert greedy.argmax().item() == 2  # it also works at temperature 0


LOGITS = st.lists(st.integers(-80, 80).map(lambda i: i / 10), min_size=7, max_size=7, unique=True)


@given(
    logits=LOGITS,
    temperature=st.sampled_from([0.3, 1.0, 1.7]),
    top_k=st.sampled_from([0, 1, 3, 6]),
    top_p=st.sampled_from([1.0, 0.9123, 0.5077]),
    min_p=st.sampled_from([0.0, 0.0512, 0.377]),
    penalty=st.sampled_from([1.0, 1.3, 0.7]),
)
@settings(max_examples=60, deadline=None)
def test_equal_to_transformers_filters_in_the_same_order(logits, temperature, top_k, top_p, min_p, penalty):
    context, theirs = torch.tensor([[1, 4, 1]]), torch.tensor([logits])
    chain = [RepetitionPenaltyLogitsProcessor(penalty), TemperatureLogitsWarper(temperature)]
    chain += [TopKLogitsWarper(top_k)] if top_k else []
    chain += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    chain += [MinPLogitsWarper(min_p)] if min_p else []
    for processor in chain:
        theirs = processor(context, theirs)
    ours = filtered_probabilities(
        torch.tensor([logits]),
        Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, repetition_penalty=penalty),
        context,
    )
    torch.testing.assert_close(ours, theirs.softmax(-1), rtol=1e-4, atol=1e-6)


@given(logits=LOGITS, top_p=st.floats(0.01, 1.0), min_p=st.floats(0.0, 1.0), top_k=st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_a_filter_only_takes_away_and_never_the_best(logits, top_p, min_p, top_k):
    before = torch.tensor([logits]).softmax(-1)
    after = filtered_probabilities(torch.tensor([logits]), Sampling(top_p=top_p, min_p=min_p, top_k=top_k))
    assert abs(after.sum().item() - 1) < 1e-5
    assert after.argmax() == before.argmax()
    kept = after > 0
    torch.testing.assert_close(after[kept], before[kept] / before[kept].sum(), rtol=1e-4, atol=1e-7)


def test_rows_are_filtered_each_by_itself():
    rows = torch.tensor([P, P[::-1]]).log()
    assert filtered_probabilities(rows, Sampling(top_k=2)).tolist() == [
        near([2 / 3, 1 / 3, 0, 0, 0]),
        near([0, 0, 0, 1 / 3, 2 / 3]),
    ]


def test_tokens_are_sampled_as_often_as_they_are_probable():
    """10,000 samples of 5 tokens. Pearson's sum has 4 degrees of freedom: above 41.4 once in 5e7 (the seed is set)."""
    n, p = 10_000, torch.tensor(P)
    generator = torch.Generator().manual_seed(0)
    sampled = torch.cat([sample(p[None], [generator]) for _ in range(n)])
    expected = n * p
    chi_square = ((torch.bincount(sampled, minlength=5) - expected) ** 2 / expected).sum()
    assert 0.001 < chi_square < 41.4  # and too good is suspicious as well


def test_what_was_cut_is_never_drawn():
    """Zeros at the beginning, in the middle and at the end; 2,000 samples."""
    p = torch.tensor([[0.0, 0.3, 0.0, 0.7, 0.0, 0.0]])
    generator = torch.Generator().manual_seed(0)
    assert {sample(p, [generator]).item() for _ in range(2000)} == {1, 3}


def test_each_row_has_its_own_generator():
    p = torch.full((3, 1000), 1 / 1000)
    together = sample(p, [torch.Generator().manual_seed(seed) for seed in (5, 6, 7)])
    alone = [sample(p[:1], [torch.Generator().manual_seed(seed)]).item() for seed in (5, 6, 7)]
    assert together.tolist() == alone and len(set(alone)) == 3


def test_tiny_probabilities_are_not_lost_in_a_long_line():
    """60,000 tokens share one half, one token has the other."""
    p = torch.full((1, 60_001), 0.5 / 60_000)
    p[0, 0] = 0.5
    generator = torch.Generator().manual_seed(0)
    drawn = torch.cat([sample(p, [generator]) for _ in range(400)])
    assert 0.5 - 6 * 0.025 < (drawn == 0).float().mean() < 0.5 + 6 * 0.025  # 6 deviations: once in 5e8
    assert drawn.max() > 50_000 and drawn.max() <= 60_000


@pytest.mark.parametrize(
    ("setting", "rule"),
    [
        ({"temperature": -0.1}, "0 (most likely token) or more"),
        ({"temperature": math.nan}, "0 (most likely token) or more"),
        ({"temperature": math.inf}, "0 (most likely token) or more"),
        ({"top_k": -1}, "0 (off) or a number"),
        ({"top_p": 0}, "at most 1 (off)"),
        ({"top_p": 1.5}, "at most 1 (off)"),
        ({"min_p": -0.5}, "between 0 (off) and 1"),
        ({"repetition_penalty": 0}, "1 is off"),
        ({"seed": 2**63}, "64-bit"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_rule(setting: dict, rule: str):
    with pytest.raises(UsageError) as error:
        Sampling(**setting)
    ((name, value),) = setting.items()
    assert str(error.value).startswith(f"{name}={value} is out of range") and rule in str(error.value)


@pytest.mark.parametrize("penalty", [1e-45, 1e-30, 1e30, 1e308])
def test_no_penalty_makes_logits_that_are_no_numbers(penalty):
    """All tokens have come, as in a text over few characters; one of them is forbidden."""
    logits = torch.tensor([[2.0, 0.5, -1.0, -3.0, -math.inf]])
    context = torch.arange(5)[None]
    for temperature in (0, 1e-3, 1.0, 50.0):
        p = filtered_probabilities(logits, Sampling(temperature, repetition_penalty=penalty), context)
        assert p.isfinite().all() and float(p.sum()) == pytest.approx(1) and p[0, 4] == 0


@pytest.mark.parametrize("filters", [{"top_p": 5e-324}, {"min_p": 5e-324}, {"top_p": 1e-46, "min_p": 1.0, "top_k": 1}])
def test_no_filter_cuts_the_best_token(filters):
    """Numbers that 32 bits round to 0."""
    p = filtered_probabilities(torch.tensor([[0.0, 3.0, 1.0]]), Sampling(**filters))
    assert p.isfinite().all() and float(p.sum()) == pytest.approx(1) and p.argmax() == 1
