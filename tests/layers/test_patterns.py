"""Patterns: the graph of who may look at whom, drawn as the docstring draws it."""

from __future__ import annotations

import pytest
import torch

from glassformer.errors import UsageError
from glassformer.layers import Causal, Full, Window


def drawn(pattern, t: int = 4, s: int | None = None) -> list[str]:
    mask = pattern.mask(torch.arange(t), torch.arange(s or t))
    return ["".join("x" if may else "." for may in row) for row in mask.tolist()]


def test_the_three_drawings_of_the_docstring():
    assert drawn(Causal()) == ["x...", "xx..", "xxx.", "xxxx"]
    assert drawn(Full()) == ["xxxx"] * 4
    assert drawn(Window(2)) == ["x...", "xx..", ".xx.", "..xx"]


def test_a_window_of_one_sees_itself_and_a_wide_one_is_causal():
    assert drawn(Window(1)) == ["x...", ".x..", "..x.", "...x"]
    assert drawn(Window(99)) == drawn(Causal())


def test_patterns_combine():
    class Globals(Full):
        """Everybody sees the first two positions, also those that lie ahead."""

        def allows(self, pos_q, pos_k):
            return (pos_k < 2) & (pos_q >= 0)

    assert drawn(Window(2) & Causal()) == drawn(Window(2))
    assert drawn(Window(2) | Globals()) == ["xx..", "xx..", "xxx.", "xxxx"]
    assert drawn((Window(1) | Globals()) & Causal()) == ["x...", "xx..", "xxx.", "xx.x"]


def test_positions_need_not_start_at_nought_nor_agree_in_a_batch():
    """With a cache, queries stand at 5 and 6 while keys go back to 0; rows of a batch may stand elsewhere."""
    assert Causal().mask(torch.tensor([5, 6]), torch.arange(7)).sum(dim=-1).tolist() == [6, 7]
    pos_q = torch.tensor([[0, 1], [2, 3]])
    assert Window(2).mask(pos_q, torch.arange(5)).shape == (2, 2, 5)
    assert Window(2).mask(pos_q, torch.arange(5))[1].tolist() == [
        [False, True, True, False, False],
        [False, False, True, True, False],
    ]


def test_a_window_that_sees_nothing_is_refused():
    with pytest.raises(UsageError, match=r"^window width 0 is too small; a query sees at least itself: use 1 or more$"):
        Window(0)
