"""Masks: the graph of who may attend to whom, drawn as the docstring draws it, combined, and written as text."""

from __future__ import annotations

import re

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from glassformer.errors import UsageError
from glassformer.layers import (
    And,
    BidirectionalWindow,
    Causal,
    Documents,
    Full,
    GraphMask,
    Mask,
    PaddingMask,
    Prefix,
    Sinks,
    Window,
    masks,
    parse_mask,
)
from glassformer.layers.masks import FAR


def drawn(mask: Mask, t: int = 4, s: int | None = None) -> list[str]:
    return mask.draw(t, s).replace(" ", "").splitlines()


def test_the_drawings_of_the_docstring_are_true():
    lines = masks.__doc__.splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    causal"))
    names = lines[at].split()
    assert len(names) == 6
    for column, text in enumerate(names):
        picture = [re.split(r"\s{3,}", line.strip())[column] for line in lines[at + 1 : at + 6]]
        assert "\n".join(picture) == parse_mask(text).draw(5), text


def test_masks_combine():
    assert drawn(Window(1)) == ["x...", ".x..", "..x.", "...x"]
    assert drawn(Window(99)) == drawn(Causal()) == drawn(Prefix(0)) == drawn(Sinks(9)) == drawn(Window(99) & Causal())
    assert drawn(BidirectionalWindow(99)) == drawn(Full()) == drawn(Prefix(4))
    assert drawn(Window(2) | Sinks(1)) == ["x...", "xx..", "xxx.", "x.xx"]
    assert drawn(BidirectionalWindow(1) & Prefix(2)) == ["xx..", "xx..", ".xx.", "..xx"]


def test_positions_need_not_start_at_nought_nor_agree_in_a_batch():
    """With a cache, queries stand at 5 and 6 while keys go back to 0; rows of a batch may stand elsewhere."""
    assert Causal().mask(torch.tensor([5, 6]), torch.arange(7)).sum(dim=-1).tolist() == [6, 7]
    by_row = Window(2).mask(torch.tensor([[0, 1], [2, 3]]), torch.arange(5))
    assert by_row.shape == (2, 2, 5) and by_row[1].int().tolist() == [[0, 1, 1, 0, 0], [0, 0, 1, 1, 0]]


def test_masks_of_a_batch():
    ids = torch.tensor([[7, 7, 3, 7], [5, 6, 6, 6]])  # document 7 returns
    assert drawn(Documents(ids)) == ["xx.x", "xx.x", "..x.", "xx.x", "", "x...", ".xxx", ".xxx", ".xxx"]
    assert drawn(Causal() & Documents(ids)) == ["x...", "xx..", "..x.", "xx.x", "", "x...", ".x..", ".xx.", ".xxx"]
    assert drawn(Documents(ids[0])) == drawn(Documents(ids))[:4]
    with_a_cache = Documents(ids).mask(torch.tensor([[3], [1]]), torch.arange(4))
    assert with_a_cache.int().tolist() == [[[1, 1, 0, 1]], [[0, 1, 1, 1]]]
    padding = PaddingMask(torch.tensor([3, 0]))
    assert drawn(padding, 2, 4) == ["xxx.", "xxx.", "", "....", "...."]
    assert drawn(padding & Causal(), 2, 4) == ["x...", "xx..", "", "....", "...."]
    prefix = Prefix(torch.tensor([0, 2, 3]))
    assert drawn(prefix, 3) == ["x..", "xx.", "xxx", "", "xx.", "xx.", "xxx", "", *["xxx"] * 3]


DISTANCES = torch.tensor([[[0, 1, 2, -1], [1, 0, 1, -1], [2, 1, 0, -1], [-1, -1, -1, 0]], [[0, 1, 1, 1]] * 4])


def test_the_graph_of_each_row_comes_with_the_batch():
    """graph(n) is a promise; the distances of a batch keep it, in combinations too."""
    mask = parse_mask("graph(1) | sinks(1)")
    assert str(mask) == "graph(1) | sinks(1)" and mask.needs_graph and not parse_mask("full").needs_graph
    with pytest.raises(UsageError, match="distances_BTT"):
        mask.draw(4)
    bound = mask.on_graph(DISTANCES)
    assert bound.rows == 2 and not bound.needs_graph
    assert drawn(bound) == ["xx..", "xxx.", "xxx.", "x..x", "", *["xxxx"] * 4]
    assert drawn(parse_mask("graph(2)").on_graph(DISTANCES))[:4] == ["xxx.", "xxx.", "xxx.", "...x"]
    with pytest.raises(UsageError, match="made for 2 rows"):
        bound.mask(torch.zeros(3, 4, dtype=torch.int64), torch.arange(4))


def test_graphs_from_a_list_and_from_a_matrix():
    assert drawn(GraphMask.of([(0, 2), (3, 1)], n=4)) == ["..x.", "....", "....", ".x.."]
    assert drawn(GraphMask.of([(0, 2), (3, 1)], n=4, both_ways=True, loops=True)) == ["x.x.", ".x.x", "x.x.", ".x.x"]
    assert drawn(GraphMask(torch.eye(3, dtype=torch.bool)) | Sinks(1), 3) == ["x..", "xx.", "x.x"]


OF_ROWS = {
    "prefix": Prefix(torch.tensor([2, 5])),
    "documents": Documents(torch.tensor([[0, 0, 1, 1, 1, 1, 0], [3, 2, 2, 2, 2, 2, 3]])),
    "padding": PaddingMask(torch.tensor([7, 4])),
}
ALL = {
    **{text: parse_mask(text) for text in ("causal", "full", "window(3)", "sinks(2)", "bidirectional_window(2)")},
    **OF_ROWS,
    "prefix(4)": Prefix(4),
    "graph": GraphMask.of([(0, 3), (6, 1), (2, 2)], n=7),
    "graph of each row": GraphMask(
        torch.eye(7, dtype=torch.bool)[torch.tensor([[0, 2, 1, 3, 4, 5, 6], [*range(6, -1, -1)]])]
    ),
    "one row": Documents(torch.tensor([0, 0, 2, 2, 1, 1, 1])),
    "and": (Window(4) | Sinks(1)) & OF_ROWS["documents"],
    "or": Causal() & OF_ROWS["documents"] | GraphMask.of([(0, 5)], n=7) & OF_ROWS["padding"],
}


@pytest.mark.parametrize("name", ALL)
def test_edge_by_edge_equals_the_matrix_and_no_edge_is_beyond_the_reach(name):
    """What attention leaves out by `reach` must be masked anyway."""
    mask, pos = ALL[name], torch.arange(7)
    matrix = mask.mask(pos, pos).expand(2, 7, 7)
    asked = [[[bool(mask.mask_mod(b, pos[0], i, j)) for j in pos] for i in pos] for b in torch.arange(2)]
    assert asked == matrix.tolist()
    before, after, sinks = mask.reach
    back = pos[:, None] - pos
    assert not (matrix & ~((back <= before) & (-back <= after) | (pos < sinks) & (back >= 0))).any()
    assert mask.looks_ahead or not (matrix & (back < 0)).any()


def test_the_reach_is_no_larger_than_it_has_to_be():
    assert Window(5).reach == (4, 0, 0)
    assert (Window(5) | Sinks(2)).reach == (4, 0, 2) == (Causal() & (Sinks(2) | Window(5))).reach
    assert (BidirectionalWindow(5) & Prefix(3)).reach == (5, 2, 0)
    assert OF_ROWS["documents"].reach == (6, 6, 0)  # document 0 of the first row returns at the end
    assert (Causal() & Documents(torch.tensor([4, 4, 4, 9, 9, 4 + 9]))).reach == (2, 0, 0)
    assert ALL["graph"].reach == (5, 3, 0)
    assert GraphMask(torch.zeros(3, 3, dtype=torch.bool)).reach == (0, 0, 0)
    ahead = {name for name, mask in ALL.items() if mask.looks_ahead}
    assert ahead == set(ALL) - {"causal", "window(3)", "sinks(2)", "and"}


def test_local_is_what_looks_only_so_far_both_ways():
    local = (Window(5), Window(5) | Sinks(2), BidirectionalWindow(3), Causal() & BidirectionalWindow(3), Sinks(1))
    assert all(mask.is_local for mask in local)
    assert not any(mask.is_local for mask in (Causal(), Full(), Window(5) | Causal(), Prefix(3)))


def test_a_mask_of_ones_own_works_with_the_rest():
    class Odd(Mask):
        """Keys at odd positions."""

        def mask_mod(self, b, h, q, k):
            return k % 2 == 1

    assert drawn(Odd()) == [".x.x"] * 4
    assert drawn(Odd() & Causal() | Window(1)) == ["x...", ".x..", ".xx.", ".x.x"]
    assert str(Odd() | Window(1)) == "odd | window(1)"
    assert Odd().reach == (FAR, FAR, 0) and Odd().looks_ahead


def test_masks_with_tensors_compile():
    """One compilation serves batches of other lengths: the tensors are inputs and not constants."""
    torch._dynamo.reset()
    count = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(lambda mask, pos: mask.mask(pos, pos), backend=count, fullgraph=True)
    for lengths, ids in (([3, 4], [0, 0, 1, 1]), ([1, 2], [0, 1, 1, 2])):
        mask = Causal() & PaddingMask(torch.tensor(lengths)) & Documents(torch.tensor(ids))
        assert torch.equal(compiled(mask, torch.arange(4).expand(2, 4)), mask.mask(torch.arange(4), torch.arange(4)))
    assert count.frame_count == 1
    torch._dynamo.reset()


def written_masks() -> st.SearchStrategy[Mask]:
    sizes = st.integers(1, 9)
    leaves = (sizes.map(kind) for kind in (Window, Sinks, Prefix, BidirectionalWindow))
    return st.recursive(
        st.one_of(st.sampled_from([Causal(), Full()]), *leaves),
        lambda inner: st.tuples(inner, inner, st.booleans()).map(lambda t: t[0] & t[1] if t[2] else t[0] | t[1]),
        max_leaves=7,
    )


@given(written_masks())
@settings(max_examples=100, deadline=None)
def test_text_and_back(mask):
    """The same tree, so the same graph; spaces and capitals do not count."""
    assert len(str(mask)) > 200 or parse_mask(str(mask)) == mask
    assert len(str(mask)) > 200 or parse_mask(f"  {str(mask).replace(' ', '').upper()}\n") == mask


def test_and_binds_tighter_than_or():
    assert parse_mask("window(2) | sinks(1) & causal") == Window(2) | (Sinks(1) & Causal())
    assert parse_mask("around(3) | causal") == BidirectionalWindow(3) | Causal()  # as version 0.1 wrote it
    assert parse_mask("(window(2) | sinks(1)) & causal") == And(Window(2) | Sinks(1), Causal())
    assert str((Window(2) | Sinks(1)) & (Causal() & Full())) == "(window(2) | sinks(1)) & (causal & full)"
    assert str(PaddingMask(torch.tensor([3, 5])) & Causal()) == "padding_mask([3, 5]) & causal"
    assert str(Documents(torch.zeros(2, 9).long())) == "documents(2 x 9)"


@pytest.mark.parametrize(
    ("text", "named"),
    {
        "": "''",
        "windov(3)": "did you mean window?",
        "window": "window(64)",
        "window()": "window()",
        "window(-3)": "window(-3)",
        "window(3, 4)": "window(3, 4)",
        "causal(3)": "takes no size",
        "(causal": "(causal",
        "causal & & full": "causal & & full",
        "window(2) sinks(1)": "window(2) sinks(1)",
        "1or causal": "1or causal",
        "__import__('os')": "__import__",
        "causal if full else full": "causal if full else full",
        "causal & documents": "documents",
        "strided(3)": "strided was removed",
        "window(0)": "use 1 or more",
        "window(99999999999999999999)": "use less than 2147483648",
        "(" * 199: "((((",
        "(" * 500: "500 characters",
        "7" * 200 + "!": "200",
    }.items(),
)
def test_a_text_that_is_no_mask_is_refused_in_one_line(text, named):
    with pytest.raises(UsageError) as caught:
        parse_mask(text)
    assert named in str(caught.value) and "\n" not in str(caught.value)


@given(st.text("causlwindo(123)&| \n²٣", max_size=30))
@settings(deadline=None)
def test_any_text_is_parsed_or_refused(text):
    try:
        mask = parse_mask(text)
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert parse_mask(str(mask)) == mask


TWO = torch.tensor([1, 2])


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Prefix(-1), "prefix length -1"),
        (lambda: PaddingMask(torch.tensor([2.0])), "torch.float32 (1,)"),
        (lambda: Documents(torch.zeros(1, 2, 3).long()), "torch.int64 (1, 2, 3)"),
        (lambda: GraphMask(torch.zeros(2, 3, dtype=torch.bool)), "GraphMask.of(pairs, n=N)"),
        (lambda: GraphMask.of([(0, 4)], n=4), "edge (0, 4)"),
        (lambda: PaddingMask(TWO) & Prefix(torch.tensor([1, 2, 3])), "2 rows, the batch has 3"),
        (lambda: PaddingMask(TWO).mask(torch.zeros(3, 4).long(), torch.arange(4)), "2 rows, the batch has 3"),
        (lambda: (Causal() & Documents(TWO)).draw(4), "position 3 is beyond the 2 positions"),
        (lambda: GraphMask.of([], n=2).draw(3), "position 2 is beyond the 2 positions of graph_mask(2 x 2)"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(make, named):
    with pytest.raises(UsageError) as caught:
        make()
    assert named in str(caught.value) and "\n" not in str(caught.value)
