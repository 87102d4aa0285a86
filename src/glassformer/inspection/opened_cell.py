"""One number of a head's computation, opened into the products that it is the sum of.

    query:3       number 3 of the query     = row 3 of W_Q times x: C products
    key:5:3       number 3 of the key at 5    dots:5       q . k with the key at 5: D products
    weighted:5:3  weight at 5 times value     weighted_values:3   the sum of these: S products

A norm counts as a product, its divisor frozen at that of this vector.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glassformer.errors import UsageError, did_you_mean
from glassformer.figures import Column, Figure, Note, Table, number
from glassformer.inspection.direct_logit_attribution import frozen
from glassformer.inspection.head_computation import HeadComputation, Stages, cpu, weight_of
from glassformer.inspection.reading import check_place
from glassformer.layers import LayerNorm

MOST_ROWS = 24  # products that are shown, the largest first


@dataclass
class OpenedCell:
    """A number, and the products that add up to it (N of them)."""

    cell: str
    name: str  # in words
    labels: list[str]  # (N,) what each product is of
    left: np.ndarray  # (N,)
    right: np.ndarray  # (N,)
    value: float  # as the walk-through has it

    @property
    def total(self) -> float:
        return float(self.left.astype(np.float64) @ self.right.astype(np.float64))

    def figures(self) -> list[Figure]:
        products = self.left * self.right
        order = np.argsort(-np.abs(products), kind="stable")
        shown, rest = order[:MOST_ROWS], order[MOST_ROWS:]
        columns = [Column("of"), Column("this", "number"), Column("times", "number")]
        columns.append(Column("product", "signed", digits=4, role="weights"))
        rows = [[self.labels[i], *(float(x[i]) for x in (self.left, self.right, products))] for i in shown]
        footer: list[list[Any]] = []
        if len(rest):
            footer.append([f"the other {len(rest)}", None, None, float(products[rest].sum())])
        footer.append(["sum", None, None, self.total])
        note = f"{self.name} = {number(self.value)}; the sum differs by {abs(self.total - self.value):.1e}."
        return [Table(f"Opened: {self.name}", columns, rows, footer=footer), Note(note)]


Terms = tuple[list[str], Tensor, Tensor]  # labels, left, right


def open_cell(of: HeadComputation, stages: Stages, cell: str, keys: list[str]) -> OpenedCell:
    """The products of a cell, STAGE:NUMBER or STAGE:KEY:NUMBER.

    Raises:
        UsageError: there is no such stage or number.
    """
    stage, *rest = cell.split(":")
    if stage not in OPENERS:
        raise UsageError(f"cell={cell}: no stage is called {stage!r}; {did_you_mean(stage, OPENERS)}")
    opener, n_places = OPENERS[stage]
    try:
        places = [int(part) for part in rest]
    except ValueError:
        places = []
    if len(places) != n_places:
        form = f"{stage}:KEY:NUMBER" if n_places == 2 else f"{stage}:NUMBER"
        raise UsageError(f"cell={cell}: write {form}, places counted from 0")
    values = stages["weights"][:, None] * stages["value"] if stage == "weighted" else stages[stage]
    for i, size in enumerate(values.shape):
        check_place("key" if n_places == 2 and i == 0 else "number", places[i], size)
    labels, left, right = opener(of, stages, stage, places)
    at = f" of {keys[places[0]]!r}" if n_places == 2 or stage in ("dots", "scaled", "weights") else ""
    which = f" number {places[-1]}" if n_places == 2 or not at else ""
    name = f"{WORDS.get(stage, stage)}{at},{which}".rstrip(",")
    return OpenedCell(cell, name, labels, left.numpy(), right.numpy(), float(values[tuple(places)]))


WORDS = {
    "normed": "x", "query_plain": "W_Q.x", "query_normed": "normed query", "key_plain": "W_K.x", "dots": "q . k",
    "key_normed": "normed key", "scaled": "scaled score", "weights": "weight", "weighted": "weight times value",
    "weighted_values": "weighted sum of values", "head_output": "W_O of this head", "output": "output of all heads",
    "added": "what is added", "sum": "the stream behind it", "after": "the stream behind it",
}  # fmt: skip


def _numbered(name: str, n: int) -> list[str]:
    return [f"{name} {i}" for i in range(n)]


def _plus(terms: Terms, bias: Any, name: str = "bias") -> Terms:
    """The terms and a bias, which counts once."""
    labels, left, right = terms
    if bias is None:
        return terms
    return [*labels, name], torch.cat([left, bias.reshape(1)]), torch.cat([right, torch.ones(1)])


def _norm(norm: Any, vector: Tensor, i: int) -> Terms:
    """One number of a norm: what stands there (of a layer norm less the mean) times its scale."""
    linear, bias = frozen(norm, vector.double())
    is_layer_norm = isinstance(norm, LayerNorm)
    centred = vector - vector.mean() if is_layer_norm else vector
    unit = torch.zeros_like(vector, dtype=torch.float64)
    unit[i] = 1.0
    scale = (linear(unit)[i] / (1 - 1 / len(vector) if is_layer_norm else 1)).float().reshape(1)
    label = "the number there, less the mean" if is_layer_norm else "the number there"
    return _plus(([label], centred[i : i + 1], scale), None if bias is None else bias[i].float())


def _x(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    (i,) = places
    if of.norms.before is None:
        return ["the stream"], s["stream"][i : i + 1], torch.ones(1)
    return _norm(of.norms.before, s["stream"], i)


def _projection(which: int) -> Callable[..., Terms]:
    """W_Q, W_K or W_V times x."""

    def terms(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
        weight_DC, bias_D = of.projections()[which]
        x_C, i = (s["normed"] if which == 0 else of.inputs_SC[places[0]]), places[-1]
        return _plus((_numbered("x", len(x_C)), weight_DC[i], x_C), None if bias_D is None else bias_D[i])

    return terms


def _normed_head(name: str) -> Callable[..., Terms]:
    """The norm of queries or keys, whose divisor is frozen."""

    def terms(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
        at = tuple(places)
        plain, normed = s[f"{name}_plain"][at], s[f"{name}_normed"][at]
        factor = normed / plain if abs(float(plain)) > 1e-12 else torch.ones(())
        return [f"W_{name[0].upper()}.x"], plain.reshape(1), factor.reshape(1)

    return terms


def _rotated(name: str) -> Callable[..., Terms]:
    """Rotation by positions: at most two numbers, a cosine and a sine; without it the step before."""
    earlier = {"query": (_projection(0), _normed_head("query")), "key": (_projection(1), _normed_head("key"))}[name]

    def terms(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
        has_norm = of.attention.query_norm is not None
        if not of.rotates:
            return earlier[has_norm](of, s, stage, places)
        before = s[f"{name}_normed"] if name == "query" else s[f"{name}_normed"][places[0]]
        D, place = len(before), of.position if name == "query" else places[0]
        turned_DD = of.rotated(torch.eye(D), [place] * D)  # row j: what number j becomes
        column_D = turned_DD[:, places[-1]]
        some = [j for j in range(D) if abs(float(column_D[j])) > 0]
        return [f"number {j} before rotation" for j in some], before[some], column_D[some]

    return terms


def _dots(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    return _numbered("q, k", len(s["query"])), s["query"], s["key"][places[0]]


def _scaled(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    (i,) = places
    terms = ["q . k"], s["dots"][i : i + 1], torch.tensor([float(s["scale"])])
    return _plus(terms, None if s["bias"] is None else s["bias"][i], "what positions add")


def _softmax(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    (i,) = places
    return (
        ["e^(score - the largest), 1 / their sum"],
        s["exponentials"][i : i + 1],
        torch.tensor([1 / (s["total"] or 1.0)]),
    )


def _weighted(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    key, i = places
    return ["weight, value"], s["weights"][key : key + 1], s["value"][key, i : i + 1]


def _weighted_values(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    return _numbered("key", len(s["weights"])), s["weights"], s["value"][:, places[0]]


def _head_output(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    D = len(s["weighted_values"])
    own_CD = weight_of(of.attention.out).unflatten(1, (of.attention.n_head, -1))[:, of.head]
    return _numbered("weighted sum", D), own_CD[places[0]], s["weighted_values"]


def _output(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    (i,) = places
    by_head_H = s["output_by_head"][:, i]
    terms = _numbered("head", len(by_head_H)), by_head_H, torch.ones(len(by_head_H))
    return _plus(terms, None if s["output_bias"] is None else s["output_bias"][i])


def _added(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    if of.norms.behind is None:
        return ["output"], s["output"][places], torch.ones(1)
    return _norm(of.norms.behind, s["output"], places[0])


def _sum(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    (i,) = places
    return ["stream", "what is added"], torch.stack([s["stream"][i], s["added"][i]]), torch.ones(2)


def _after(of: HeadComputation, s: Stages, stage: str, places: list[int]) -> Terms:
    if of.norms.of_sum is None:
        return _sum(of, s, stage, places)
    return _norm(of.norms.of_sum, cpu(s["sum"]), places[0])


OPENERS: dict[str, tuple[Callable[..., Terms], int]] = {
    "normed": (_x, 1),
    "query_plain": (_projection(0), 1),
    "query_normed": (_normed_head("query"), 1),
    "query": (_rotated("query"), 1),
    "key_plain": (_projection(1), 2),
    "key_normed": (_normed_head("key"), 2),
    "key": (_rotated("key"), 2),
    "value": (_projection(2), 2),
    "dots": (_dots, 1),
    "scaled": (_scaled, 1),
    "weights": (_softmax, 1),
    "weighted": (_weighted, 2),
    "weighted_values": (_weighted_values, 1),
    "head_output": (_head_output, 1),
    "output": (_output, 1),
    "added": (_added, 1),
    "sum": (_sum, 1),
    "after": (_after, 1),
}
"""What opens the cells of a stage, and how many numbers name one."""
