"""Patterns: the graph of who may look at whom, drawn as the docstrings draw it, combined, and said in text."""

from __future__ import annotations

import re

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import UsageError
from glassformer.layers import (
    PATTERNS,
    Around,
    Causal,
    Documents,
    Edges,
    Full,
    Globals,
    Lengths,
    Pattern,
    Prefix,
    Sinks,
    Strided,
    Window,
    parse_pattern,
    patterns,
)
from glassformer.layers.pattern_base import FAR, Reach


def drawn(pattern: Pattern, t: int = 4, s: int | None = None) -> list[str]:
    return pattern.draw(t, s).replace(" ", "").splitlines()


def test_the_drawings_of_the_docstring_are_true():
    lines = patterns.__doc__.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    Causal"))
    names = lines[at].split()
    assert len(names) == 8
    for column, text in enumerate(names):
        picture = [re.split(r"\s{3,}", line.strip())[column] for line in lines[at + 1 : at + 6]]
        assert "\n".join(picture) == parse_pattern(text).draw(5), text


def test_a_window_of_one_sees_itself_and_a_wide_one_is_causal():
    assert drawn(Window(1)) == ["x...", ".x..", "..x.", "...x"]
    assert drawn(Window(99)) == drawn(Causal()) == drawn(Prefix(0)) == drawn(Strided(1)) == drawn(Sinks(9))
    assert drawn(Around(99)) == drawn(Full()) == drawn(Globals(4)) == drawn(Prefix(4))


def test_patterns_combine():
    assert drawn(Window(2) & Causal()) == drawn(Window(2))
    assert drawn(Window(2) | Sinks(1)) == ["x...", "xx..", "xxx.", "x.xx"]
    assert drawn((Window(1) | Globals(2)) & Causal()) == ["x...", "xx..", "xxx.", "xx.x"]
    assert drawn(Around(1) & Prefix(2)) == ["xx..", "xx..", ".xx.", "..xx"]
    assert drawn(Window(2) | Strided(3), 6)[5] == "..x.xx"


def test_positions_need_not_start_at_nought_nor_agree_in_a_batch():
    """With a cache, queries stand at 5 and 6 while keys go back to 0; rows of a batch may stand elsewhere."""
    assert Causal().mask(torch.tensor([5, 6]), torch.arange(7)).sum(dim=-1).tolist() == [6, 7]
    pos_q = torch.tensor([[0, 1], [2, 3]])
    assert Window(2).mask(pos_q, torch.arange(5)).shape == (2, 2, 5)
    assert Window(2).mask(pos_q, torch.arange(5))[1].tolist() == [
        [False, True, True, False, False],
        [False, False, True, True, False],
    ]


def test_documents_do_not_see_each_other_even_when_one_returns():
    ids = torch.tensor([[7, 7, 3, 7], [5, 6, 6, 6]])
    assert drawn(Documents(ids)) == ["xx.x", "xx.x", "..x.", "xx.x", "", "x...", ".xxx", ".xxx", ".xxx"]
    assert drawn(Causal() & Documents(ids)) == ["x...", "xx..", "..x.", "xx.x", "", "x...", ".x..", ".xx.", ".xxx"]
    assert drawn(Documents(ids[0])) == drawn(Documents(ids))[:4]
    with_a_cache = Documents(ids).mask(torch.tensor([[3], [1]]), torch.arange(4))
    assert with_a_cache.int().tolist() == [[[1, 1, 0, 1]], [[0, 1, 1, 1]]]


def test_padding_is_seen_by_nobody():
    lengths = Lengths(torch.tensor([3, 0]))
    assert drawn(lengths, 2, 4) == ["xxx.", "xxx.", "", "....", "...."]
    assert drawn(lengths & Causal(), 2, 4) == ["x...", "xx..", "", "....", "...."]
    assert lengths.allows(torch.arange(2)[:, None], torch.arange(4)[None]).shape == (2, 1, 4)  # nothing a query
    assert lengths.mask(torch.arange(2), torch.arange(4)).shape == (2, 2, 4)


def test_prefixes_may_differ_by_row():
    assert drawn(Prefix(torch.tensor([0, 2, 3])), 3) == ["x..", "xx.", "xxx", "", "xx.", "xx.", "xxx", "", *["xxx"] * 3]


def test_edges_from_a_list_and_from_a_matrix():
    assert drawn(Edges.of([(0, 2), (3, 1)], n=4)) == ["..x.", "....", "....", ".x.."]
    assert drawn(Edges.of([(0, 2), (3, 1)], n=4, both_ways=True, loops=True)) == ["x.x.", ".x.x", "x.x.", ".x.x"]
    assert drawn(Edges(torch.eye(3, dtype=torch.bool)) | Sinks(1), 3) == ["x..", "xx.", "x.x"]


OF_ROWS = {
    "prefix": Prefix(torch.tensor([2, 5])),
    "documents": Documents(torch.tensor([[0, 0, 1, 1, 1, 1, 0], [3, 2, 2, 2, 2, 2, 3]])),
    "lengths": Lengths(torch.tensor([7, 4])),
}
ALL = {
    **{text: parse_pattern(text) for text in ("causal", "full", "window(3)", "sinks(2)", "strided(3)", "around(2)")},
    **OF_ROWS,
    "globals": Globals(2),
    "prefix(4)": Prefix(4),
    "edges": Edges.of([(0, 3), (6, 1), (2, 2)], n=7),
    "one row": Documents(torch.tensor([0, 0, 2, 2, 1, 1, 1])),
    "both": (Window(4) | Sinks(1)) & OF_ROWS["documents"],
    "either": Causal() & OF_ROWS["documents"] | Edges.of([(0, 5)], n=7) & OF_ROWS["lengths"],
}


@pytest.mark.parametrize("name", ALL)
def test_a_row_of_a_batch_has_its_own_graph(name):
    """`in_row`, asked edge by edge as FlexAttention does, says what the matrix says."""
    pattern, pos = ALL[name], torch.arange(7)
    matrix = pattern.mask(pos, pos).expand(2, 7, 7)
    asked = [[[bool(pattern.in_row(b).allows(i, j)) for j in pos] for i in pos] for b in torch.arange(2)]
    assert asked == matrix.tolist()


@pytest.mark.parametrize("name", ALL)
def test_no_edge_is_beyond_the_reach(name):
    """What attention leaves out by `reach` must be masked anyway."""
    pattern, pos = ALL[name], torch.arange(7)
    matrix = pattern.mask(pos, pos).expand(2, 7, 7)
    before, after, sinks = pattern.reach
    back = pos[:, None] - pos
    within = (back <= before) & (-back <= after) | (pos < sinks) & (back >= 0)
    assert not (matrix & ~within).any()
    if not pattern.looks_ahead:
        assert not (matrix & (back < 0)).any()


def test_the_reach_is_no_larger_than_it_has_to_be():
    assert Window(5).reach == (4, 0, 0)
    assert (Window(5) | Sinks(2)).reach == (4, 0, 2) == (Causal() & (Sinks(2) | Window(5))).reach
    assert Around(5).reach == (5, 5, 0)
    assert (Around(5) & Prefix(3)).reach == (5, 2, 0)
    assert OF_ROWS["documents"].reach == (6, 6, 0)  # document 0 of the first row returns at the end
    assert (Causal() & Documents(torch.tensor([4, 4, 4, 9, 9, 4 + 9]))).reach == (2, 0, 0)
    assert ALL["edges"].reach == (5, 3, 0)
    assert Edges(torch.zeros(3, 3, dtype=torch.bool)).reach == (0, 0, 0)
    assert Causal().reach == (FAR, 0, 0)
    ahead = {name for name, pattern in ALL.items() if pattern.looks_ahead}
    assert ahead == {"full", "around(2)", "globals", "prefix", "prefix(4)", "documents", "lengths", "edges"} | {
        "one row",
        "either",
    }


def test_local_is_what_looks_only_so_far_both_ways():
    local = (Window(5), Window(5) | Sinks(2), Around(3), Causal() & Around(3), Sinks(1))
    far = (Causal(), Full(), Strided(3), Window(5) | Causal(), Around(3) | Globals(1), Window(5) | Strided(5))
    assert all(p.is_local for p in local) and not any(p.is_local for p in far)

    class OnlyTheFuture(Pattern):
        reach = Reach(0, FAR)

    assert not OnlyTheFuture().is_local


def test_a_pattern_of_ones_own_works_with_the_rest():
    class Odd(Pattern):
        """Keys at odd positions."""

        def allows(self, pos_q, pos_k):
            return pos_k % 2 == 1

    assert drawn(Odd()) == [".x.x"] * 4
    assert drawn(Odd() & Causal() | Window(1)) == ["x...", ".x..", ".xx.", ".x.x"]
    assert str(Odd() | Window(1)) == "odd | window(1)"
    assert Odd().reach == (FAR, FAR, 0) and Odd().looks_ahead


def test_patterns_with_tensors_are_compared_by_value():
    a, b = (Lengths(torch.tensor([3, 5])) & Causal() for _ in range(2))
    assert a == b and hash(a) == hash(b) and {a: 1}[b] == 1
    assert a != Lengths(torch.tensor([3, 4])) & Causal()
    assert Lengths(torch.tensor([3, 5])) != Lengths(torch.tensor([3, 5, 5])) != Prefix(torch.tensor([3, 5, 5]))
    assert Prefix(3) == Prefix(3) != Prefix(torch.tensor(3)) and hash(Prefix(3)) == hash(Prefix(3))
    assert Window(3) == Window(3) != Sinks(3)


def test_patterns_with_tensors_compile():
    """One compilation serves batches of other lengths: the tensors are inputs and not constants."""
    torch._dynamo.reset()
    count = torch._dynamo.testing.CompileCounter()
    mask = torch.compile(lambda pattern, pos: pattern.mask(pos, pos), backend=count, fullgraph=True)
    for lengths, ids in (([3, 4], [0, 0, 1, 1]), ([1, 2], [0, 1, 1, 2])):
        pattern = Causal() & Lengths(torch.tensor(lengths)) & Documents(torch.tensor(ids))
        pos_BT = torch.arange(4).expand(2, 4)
        assert torch.equal(mask(pattern, pos_BT), pattern.mask(torch.arange(4), torch.arange(4)))
    assert count.frame_count == 1
    torch._dynamo.reset()


def texts() -> st.SearchStrategy[Pattern]:
    sizes = st.integers(1, 9)
    ones = st.one_of(
        st.sampled_from([Causal(), Full()]),
        *(sizes.map(kind) for kind in (Window, Sinks, Prefix, Strided, Around, Globals)),
    )
    return st.recursive(
        ones,
        lambda inner: st.one_of(
            st.tuples(inner, inner).map(lambda pair: pair[0] & pair[1]),
            st.tuples(inner, inner).map(lambda pair: pair[0] | pair[1]),
        ),
        max_leaves=7,
    )


@given(texts())
@settings(max_examples=100, deadline=None)
def test_text_and_back(pattern):
    """The same tree, so the same graph; spaces and capitals do not count."""
    assert parse_pattern(str(pattern)) == pattern
    assert parse_pattern(f"  {str(pattern).replace(' ', '').upper()}\n") == pattern


def test_and_binds_tighter_than_or():
    assert parse_pattern("window(2) | sinks(1) & causal") == Window(2) | (Sinks(1) & Causal())
    assert parse_pattern("(window(2) | sinks(1)) & causal") == (Window(2) | Sinks(1)) & Causal()
    assert str((Window(2) | Sinks(1)) & (Causal() & Full())) == "(window(2) | sinks(1)) & (causal & full)"
    assert str(Lengths(torch.tensor([3, 5])) & Causal()) == "lengths([3, 5]) & causal"
    assert str(Documents(torch.zeros(2, 9).long())) == "documents(2 x 9)"


BAD_TEXTS = {
    "": "pattern '': expected the name of a pattern, found the end; for example: window(64) | sinks(4)",
    "windov(3)": "pattern 'windov(3)': 'windov' is unknown; did you mean window?",
    "window": "pattern 'window': expected (, found the end; for example: window(64) | sinks(4)",
    "window()": "pattern 'window()': expected the size of window, found ')' at character 8; for example: "
    "window(64) | sinks(4)",
    "window(-3)": "pattern 'window(-3)': expected the size of window, found '-' at character 8; for example: "
    "window(64) | sinks(4)",
    "causal(3)": "pattern 'causal(3)': expected & or |, found '(' at character 7; for example: window(64) | sinks(4)",
    "(causal": "pattern '(causal': expected ), found the end; for example: window(64) | sinks(4)",
    "causal & & full": "pattern 'causal & & full': expected the name of a pattern, found '&' at character 10; "
    "for example: window(64) | sinks(4)",
    "window(2) sinks(1)": "pattern 'window(2) sinks(1)': expected & or |, found 'sinks' at character 11; for example: "
    "window(64) | sinks(4)",
    "__import__('os')": "pattern \"__import__('os')\": expected the name of a pattern, found '__import__' at "
    "character 1; for example: window(64) | sinks(4)",
    "causal & documents": "pattern 'causal & documents': documents holds a tensor, which text cannot say; make "
    "Documents in Python",
    "window(0)": "window width 0 is too small; a query sees at least itself: use 1 or more",
    "sinks(0)": "number of sinks 0 is too small; without sinks leave the pattern out: use 1 or more",
    "strided(0)": "stride 0 is too small; 1 is every position: use 1 or more",
    "window(99999999999999999999)": "window width 99999999999999999999 is too large; use less than 2147483648",
    "(" * 500: "a pattern of 500 characters is too long; at most 200, for example: window(64) | sinks(4)",
}


@pytest.mark.parametrize("text", BAD_TEXTS, ids=lambda text: text[:20])
def test_a_text_that_says_no_pattern_is_refused_in_one_line(text):
    with pytest.raises(UsageError) as caught:
        parse_pattern(text)
    assert str(caught.value) == BAD_TEXTS[text]


@given(st.text("causlwindo(123)&| \n²٣", max_size=30))
@settings(deadline=None)
def test_no_text_does_anything_but_parse_or_be_refused(text):
    try:
        pattern = parse_pattern(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_pattern(str(pattern)) == pattern


def test_every_name_of_the_table_is_the_text_of_its_class():
    for name, kind in PATTERNS.items():
        assert kind.__name__.lower() == name


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Prefix(-1), "prefix length -1 is too small; 0 is causal: use 0 or more"),
        (
            lambda: Lengths(torch.tensor([2.0])),
            "lengths need a tensor of integers (B,), not torch.float32 (1,); convert it with .long()",
        ),
        (
            lambda: Documents(torch.zeros(1, 2, 3).long()),
            "documents need a tensor of integers (T,) or (B, T), not torch.int64 (1, 2, 3); convert it with .long()",
        ),
        (
            lambda: Edges(torch.zeros(2, 3, dtype=torch.bool)),
            "edges are a boolean matrix (N, N), not torch.bool (2, 3); or use Edges.of(pairs, n=N)",
        ),
        (
            lambda: Edges.of([(0, 4)], n=4),
            "edge (0, 4) leaves the positions 0 to 3; give a larger n",
        ),
        (
            lambda: Lengths(torch.tensor([1, 2])) & Prefix(torch.tensor([1, 2, 3])),
            "lengths([1, 2]) was made for 2 rows, the batch has 3; give one entry a row",
        ),
        (
            lambda: Lengths(torch.tensor([1, 2])).mask(torch.zeros(3, 4).long(), torch.arange(4)),
            "lengths([1, 2]) was made for 2 rows, the batch has 3; give one entry a row",
        ),
        (
            lambda: (Causal() & Documents(torch.tensor([0, 0, 1]))).mask(torch.arange(4), torch.arange(4)),
            "position 3 lies beyond the 3 positions of causal & documents([0, 0, 1]); make it larger",
        ),
        (lambda: Edges.of([], n=2).draw(3), "position 2 lies beyond the 2 positions of edges(2 x 2); make it larger"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)
def test_what_does_not_fit_is_refused_in_one_line(make, message):
    with pytest.raises(UsageError) as caught:
        make()
    assert str(caught.value) == message
