"""Masks as text, as a recipe writes them (`model.patterns`): `window(64) | sinks(4)`. `str(mask)` is the way back."""

from __future__ import annotations

import ast
import re
from dataclasses import fields

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers.batch_masks import Graph
from glassformer.layers.masks import BidirectionalWindow, Causal, Full, Mask, Prefix, Sinks, Window

MASKS: dict[str, type[Mask]] = {
    "causal": Causal,
    "full": Full,
    "window": Window,
    "bidirectional_window": BidirectionalWindow,
    "sinks": Sinks,
    "prefix": Prefix,
    "graph": Graph,
}
"""The masks that a recipe can name."""

_OLD_NAMES = {"around": "bidirectional_window"}  # written by version 0.1
_ONLY_IN_PYTHON = {"documents", "padding_mask", "lengths", "graph_mask", "edges", "padding"}
_REMOVED = {"strided", "globals"}  # version 0.1 had them
_LONGEST_TEXT = 200  # characters; nesting is bounded with it


def parse_mask(text: str) -> Mask:
    """The mask that a text describes. `&` binds tighter than `|`.

    >>> parse_mask("causal & (window(64) | sinks(4))")
    And(left=Causal(), right=Or(left=Window(width=64), right=Sinks(n=4)))
    >>> str(parse_mask("window(64)|sinks( 4 )"))
    'window(64) | sinks(4)'

    Raises:
        UsageError: the text describes no mask.
    """
    if len(text) > _LONGEST_TEXT:
        raise UsageError(f"a pattern of {len(text):,} characters is too long; use at most {_LONGEST_TEXT}")
    try:
        if not re.fullmatch(r"([a-z_]\w*\b|\d+\b|[()&|\s])*", text.lower(), re.ASCII):
            raise SyntaxError
        return _mask_of(ast.parse(" ".join(text.lower().split()), mode="eval").body, text)
    except (SyntaxError, MemoryError, RecursionError):  # the last two: too many parentheses
        raise UsageError(
            f"pattern {text!r} is not a mask; combine masks with & and |, for example: window(64) | sinks(4)"
        ) from None


def _mask_of(node: ast.expr, text: str) -> Mask:
    match node:
        case ast.BinOp(left=left, op=ast.BitAnd(), right=right):
            return _mask_of(left, text) & _mask_of(right, text)
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _mask_of(left, text) | _mask_of(right, text)
        case ast.Name(id=name):
            sizes: list[int] = []
        case ast.Call(func=ast.Name(id=name), args=[ast.Constant(value=int(size))], keywords=[]):
            sizes = [size]
        case _:
            raise SyntaxError
    name = _OLD_NAMES.get(name, name)
    if name in _ONLY_IN_PYTHON:
        raise UsageError(f"pattern {text!r}: a text cannot describe {name}; make a GraphMask or another mask in Python")
    if name in _REMOVED:
        raise UsageError(f"pattern {text!r}: {name} was removed after version 0.1.0; use window, sinks or prefix")
    if name not in MASKS:
        raise UsageError(f"pattern {text!r}: {name!r} is unknown; {did_you_mean(name, MASKS)}")
    kind = MASKS[name]
    if (n := len(fields(kind))) != len(sizes):  # type: ignore[arg-type]
        raise UsageError(f"pattern {text!r}: {name} takes {n or 'no'} size; write {name}{'(64)' * n}")
    return kind(*sizes)
