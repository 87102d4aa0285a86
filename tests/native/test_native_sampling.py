"""Tokens drawn in one compiled call: those of the readable way, the same alone and in a batch."""

from __future__ import annotations

import math

import pytest
import torch
from skips import NEEDS_COMPILER

from glassformer.generation import Sampling, filtered_probabilities, sample
from glassformer.generation.sampling import uniform
from glassformer.native import library
from glassformer.native import sample as native_sample

pytestmark = pytest.mark.skipif(library() is None, reason=NEEDS_COMPILER)
B = 200


def seeded(n: int = B) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in range(n)]


def thrown(n: int = B) -> list[float]:
    return uniform(seeded(n)).flatten().tolist()


@pytest.mark.parametrize("size", [1, 65, 3000])
@pytest.mark.parametrize("temperature", [0, 1e-40, 0.3, 1, 1.7])
@pytest.mark.parametrize("top_k", [0, 1, 7, 200])
def test_the_tokens_of_the_readable_way(size, temperature, top_k):
    torch.manual_seed(size)
    plain = 3 * torch.randn(B, size)
    logits = plain + 2 * torch.randn(B, size)
    drawn, chances, own = native_sample(plain, logits, temperature, top_k, thrown())
    p = filtered_probabilities(logits, Sampling(temperature=temperature, top_k=top_k))
    expected = sample(p, seeded())
    assert drawn == expected.tolist()
    torch.testing.assert_close(torch.tensor(chances), p.gather(1, expected[:, None])[:, 0], rtol=1e-5, atol=0)
    torch.testing.assert_close(
        torch.tensor(own), plain.softmax(-1).gather(1, expected[:, None])[:, 0], rtol=1e-5, atol=0
    )


@pytest.mark.parametrize("top_k", [0, 50])
def test_alone_and_in_a_batch(top_k):
    logits = 3 * torch.randn(7, 1001)  # an odd size: rows begin at all kinds of addresses
    batched = native_sample(logits, logits, 0.8, top_k, thrown(7))
    alone = [native_sample(logits[b : b + 1], logits[b : b + 1], 0.8, top_k, [thrown(7)[b]]) for b in range(7)]
    assert [*zip(*batched, strict=True)] == [tuple(part[0] for part in one) for one in alone]


def test_what_is_forbidden_is_never_drawn():
    logits = torch.full((B, 70), -math.inf)
    logits[:, [3, 40]] = torch.tensor([0.5, 0.1])
    for temperature in (1.0, 1e-30, 100.0):
        assert set(native_sample(logits, logits, temperature, 0, thrown())[0]) <= {3, 40}
    assert native_sample(logits[:, ::2], logits[:, ::2], 0, 0, thrown())[0] == [20] * B


def test_logits_that_are_no_numbers_stay_within_the_table():
    logits = torch.full((1, 40), math.nan)
    for temperature in (0, 1.0):
        assert 0 <= native_sample(logits, logits, temperature, 5, thrown(1))[0][0] < 40
