"""Tables of tensors: which of ours is which of theirs, written down once and read in both directions.

ours                              theirs
blocks.0.attention.qkv.weight  =  h.0.attn.q.weight      a row of a table: one tensor of ours
                                  h.0.attn.k.weight      is theirs in three pieces, one above the other
                                  h.0.attn.v.weight
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from glassformer.errors import ModelFolderError

Tensors = dict[str, Tensor]


class Layout(NamedTuple):
    """How a tensor is laid out there: from ours to theirs, and back."""

    write: Callable[[Tensor], Tensor]
    read: Callable[[Tensor], Tensor]


IDENTITY = Layout(lambda ours: ours, lambda theirs: theirs)
TRANSPOSE = Layout(lambda ours: ours.t(), lambda theirs: theirs.t())  # matrices as (in, out)
UNSQUEEZE = Layout(lambda ours: ours.unsqueeze(0), lambda theirs: theirs.squeeze(0))  # one axis more, of length 1


class Row(NamedTuple):
    """One tensor of ours and its place in theirs.

    theirs: the names of the pieces that ours is cut into along its first axis, one name for a tensor that stays whole;
        None for a piece that they do not have and that is zero.
    sizes: rows of the pieces; None: all alike.
    like: where ours may lack the tensor and they may not, it is zeros, one for each row of this tensor of ours.
    """

    ours: str
    theirs: tuple[str | None, ...]
    layout: Layout = IDENTITY
    sizes: tuple[int, ...] | None = None
    like: str | None = None


class Stack(NamedTuple):
    """Several tensors of ours that are one of theirs, side by side along a first axis of its own."""

    ours: tuple[str, ...]
    theirs: tuple[str]
    layout: Layout = IDENTITY


def one(ours: str, theirs: str, layout: Layout = IDENTITY) -> Row:
    """The row of a tensor that is one tensor in both."""
    return Row(ours, (theirs,), layout)


def layer(
    ours: str,
    *theirs: str,
    layout: Layout = IDENTITY,
    sizes: tuple[int, ...] | None = None,
    bias: bool = True,
    unbiased: str | None = None,
) -> Iterator[Row]:
    """The rows of a layer's weight and, with `bias`, of its bias, which is zeros there if ours has none.

    unbiased: the one of theirs that never has any.
    """
    yield Row(f"{ours}.weight", tuple(f"{name}.weight" for name in theirs), layout, sizes)
    if bias:
        biases = tuple(None if name == unbiased else f"{name}.bias" for name in theirs)
        yield Row(f"{ours}.bias", biases, sizes=sizes, like=f"{ours}.weight")


def write(table: Iterable[Row | Stack], ours: Tensors) -> Tensors:
    """Our tensors as theirs. Raises `ModelFolderError` if one of ours has no place in the table."""
    theirs, left = {}, dict(ours)
    for row in table:
        if isinstance(row, Stack):
            theirs[row.theirs[0]] = torch.stack([row.layout.write(left.pop(name)) for name in row.ours])
            continue
        if row.ours in ours or row.like is None:
            tensor = left.pop(row.ours)
        else:
            tensor = ours[row.like].new_zeros(len(ours[row.like]))
        pieces = tensor.split(row.sizes) if row.sizes else tensor.chunk(len(row.theirs))
        for name, piece in zip(row.theirs, pieces, strict=True):
            if name is not None:
                theirs[name] = row.layout.write(piece).contiguous()
    _all_used(left)
    return theirs


def read(table: Iterable[Row | Stack], theirs: Tensors) -> Tensors:
    """Their tensors as ours. Raises `KeyError` if a tensor is missing, by its name. Raises `ModelFolderError` if one of
    theirs has no place in the table, or has another shape than its place."""
    ours: Tensors = {}
    left = dict(theirs)
    for row in table:
        if isinstance(row, Stack):
            name = row.theirs[0]
            stacked = left.pop(name)
            if stacked.dim() == 0 or len(stacked) != len(row.ours):
                raise _misshapen(name, stacked)
            ours |= {n: _laid_out(row.layout, name, piece) for n, piece in zip(row.ours, stacked, strict=True)}
            continue
        pieces = [None if name is None else _laid_out(row.layout, name, left.pop(name)) for name in row.theirs]
        some = next(piece for piece in pieces if piece is not None)
        whole = [torch.zeros_like(some) if piece is None else piece for piece in pieces]
        ours[row.ours] = torch.cat(whole) if len(whole) > 1 else some
    _all_used(left)
    return ours


def _laid_out(layout: Layout, name: str, theirs: Tensor) -> Tensor:
    try:
        return layout.read(theirs)
    except (RuntimeError, IndexError):
        raise _misshapen(name, theirs) from None


def _misshapen(name: str, tensor: Tensor) -> ModelFolderError:
    shape = tuple(tensor.shape)
    return ModelFolderError(f"{name} of shape {shape} does not fit config.json; take the weights of this model")


def under_one_name(theirs: Tensors, first: str, *others: str) -> Tensors:
    """A tied tensor under its first name alone, whichever of its names a file has. Raises `ModelFolderError` if the
    file has it under two names with other numbers, so that it is not tied."""
    names = [name for name in (first, *others) if name in theirs]
    found = [theirs[name] for name in names]
    for name, tensor in zip(names[1:], found[1:], strict=True):
        if tensor.shape != found[0].shape or not torch.equal(tensor, found[0]):
            hint = "set tie_word_embeddings to false, or take one of them out of the weights"
            raise ModelFolderError(f"{names[0]} and {name} differ, and config.json ties them; {hint}")
    rest = {name: tensor for name, tensor in theirs.items() if name not in others}
    return {**rest, first: found[0]} if found else rest


def with_head(theirs: Tensors, embedding: str, head: str, *, tied: bool) -> Tensors:
    """With the matrix of the head if it is not tied (a copy of the embedding where a file lacks it), else without."""
    if tied:
        return under_one_name(theirs, embedding, head)
    return theirs if head in theirs or embedding not in theirs else {**theirs, head: theirs[embedding].clone()}


def _all_used(left: Tensors) -> None:
    if left:
        first = next(iter(left))
        raise ModelFolderError(f"{len(left)} tensors have no place here, the first is {first}; take this model's alone")
