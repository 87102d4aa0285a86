"""Of what a number in a step is the sum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from glassformer.errors import UsageError, did_you_mean, plural
from glassformer.figures import number, visible

if TYPE_CHECKING:
    from glassformer.inspection.attention_walkthrough import StepView

Terms = tuple[Any, Any, float]  # two factors for each product, and what is added to their sum


@dataclass
class Cell:
    """One number and the products that it is the sum of.

    name: what it is, in words. value: as it stands in the view. left, right: the factors of each product, (n,).
    added: what comes on top (a bias). value = sum of left * right + added, but for rounding.
    """

    name: str
    value: float
    left: np.ndarray
    right: np.ndarray
    added: float = 0.0

    @property
    def products(self) -> np.ndarray:
        """(n,), each of which is a part of the value."""
        return self.left * self.right

    def said(self, most: int = 4) -> str:
        """As an equation with the largest products written out."""
        n = len(self.left)
        largest = np.argsort(-np.abs(self.products), kind="stable")[:most]
        ones = bool((self.right == 1).all())  # a mere sum
        terms = [_signed(self.left[i]) + ("" if ones else f" x {_signed(self.right[i])}") for i in largest]
        if n > most:
            terms.append(plural(n - most, "smaller term" if ones else "smaller product"))
        if self.added:
            terms.append(f"{_signed(self.added)} (bias)")
        return f"{self.name} = {' + '.join(terms)} = {number(self.value)}"

    def __str__(self) -> str:
        return self.said()


def cell_of(view: StepView, stage: str, index: tuple[int, ...]) -> Cell:
    """What `StepView.cell` gives."""
    if stage not in STAGES:
        raise UsageError(f"stage {stage!r} has no sums; {did_you_mean(stage, STAGES)}")
    held = getattr(view, stage)
    shape = np.shape(held)
    if len(index) != len(shape) or not all(-n <= i < n for i, n in zip(index, shape, strict=True)):
        sizes = " and ".join(f"0 to {n - 1}" for n in shape) or "no index at all"
        raise UsageError(f"{stage} {index} is out of range; it takes {sizes}")
    index = tuple(i % n for i, n in zip(index, shape, strict=True))
    name, terms = STAGES[stage]
    left, right, added = terms(view, *index)
    about = name.format(*index, key=visible(view.keys[index[0]]) if "{key" in name else "")
    value = float(held[index]) if shape else float(held)
    return Cell(about, value, _array(left), _array(right), float(added))


def _query_plain(v: StepView, d: int) -> Terms:
    return v.matrices.query[d], v.normed, _at(v.matrices.query_bias, d)


def _key_plain(v: StepView, s: int, d: int) -> Terms:
    return v.matrices.key[d], v.matrices.inputs[s], _at(v.matrices.key_bias, d)


def _value(v: StepView, s: int, d: int) -> Terms:
    return v.matrices.value[d], v.matrices.inputs[s], _at(v.matrices.value_bias, d)


def _query(v: StepView, d: int) -> Terms:
    return _turned(v, v.query_normed, v.position, d)


def _key(v: StepView, s: int, d: int) -> Terms:
    return _turned(v, v.key_normed[s], s, d)


def _turned(v: StepView, vector_D: np.ndarray, place: int, d: int) -> Terms:
    """A rotation is a matrix: what it makes of the unit vectors. Two numbers of a row are not zero."""
    D = len(vector_D)
    row = v.matrices.turn(torch.eye(D), [place] * D)[:, d].numpy()
    there = row != 0
    return row[there], vector_D[there], 0.0


def _dots(v: StepView, s: int) -> Terms:
    return v.query, v.key[s], 0.0


def _scaled(v: StepView, s: int) -> Terms:
    return [v.dots[s]], [v.scale], 0.0 if v.bias is None else v.bias[s]


def _total(v: StepView) -> Terms:
    on_sink = [] if v.sink is None else [v.sink_share * v.total]
    parts = [*v.exponentials.tolist(), *on_sink]
    return parts, np.ones(len(parts)), 0.0


def _weights(v: StepView, s: int) -> Terms:
    return [v.exponentials[s]], [1 / v.total if v.total else 0.0], 0.0


def _found(v: StepView, d: int) -> Terms:
    return v.weights, v.value[:, d], 0.0


def _said(v: StepView, c: int) -> Terms:
    return v.matrices.out[v.head, c], v.found, 0.0


def _output(v: StepView, c: int) -> Terms:
    said_H = v.said_by_head[:, c]
    return said_H, np.ones(len(said_H)), 0.0 if v.output_bias is None else v.output_bias[c]


def _sum(v: StepView, c: int) -> Terms:
    return [v.before[c], v.added[c]], [1.0, 1.0], 0.0


STAGES: dict[str, tuple[str, Any]] = {
    "query_plain": ("number {0} of W_Q x", _query_plain),
    "query": ("number {0} of the query", _query),
    "key_plain": ("number {1} of W_K x at {key!r}", _key_plain),
    "key": ("number {1} of the key at {key!r}", _key),
    "value": ("number {1} of the value at {key!r}", _value),
    "dots": ("q . k with {key!r}", _dots),
    "scaled": ("the score of {key!r}", _scaled),
    "total": ("the sum of the exponentials", _total),
    "weights": ("the share of {key!r}", _weights),
    "found": ("number {0} of what the head found", _found),
    "said": ("number {0} of what the head writes", _said),
    "output": ("number {0} of what all heads write", _output),
    "sum": ("number {0} of the stream behind it", _sum),
}
"""What a number is called, and the function that gives its factors."""


def _at(bias: torch.Tensor | None, d: int) -> float:
    return 0.0 if bias is None else float(bias[d])


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=np.float32)


def _signed(value: float) -> str:
    return f"({number(float(value))})" if value < 0 else number(float(value))
