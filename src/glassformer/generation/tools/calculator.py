"""A calculator: exact arithmetic on numbers, and nothing else.

    >>> calculate("123456789012 + 987654321098")
    '1111111110110'
    >>> calculate("(2**10 - 24) / 3"), calculate("0.1 + 0.2")
    ('333.333333333333', '0.3')

Python's own parser (`ast`) reads the expression, so that precedence and brackets are those everybody knows; nothing is
compiled or evaluated by Python. Nodes that are not in the tables below are refused. Numbers are fractions, so integers
and decimals are exact; their size is bounded before each operation.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction

from glassformer.errors import UsageError

MAX_CHARACTERS = 400
MAX_BITS = 4096  # of a numerator and of a denominator: about 1,200 digits
DIGITS = 15  # of a result that is no whole number

_OPERATORS: dict[type[ast.AST], Callable[[Fraction, Fraction], Fraction | int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_SPELLINGS = str.maketrans({"×": "*", "÷": "/", "−": "-", "^": "**"})


def _sqrt(x: Fraction) -> Fraction:
    if x < 0:
        raise UsageError("the square root of a negative number is not real")
    root = Fraction(math.isqrt(x.numerator), math.isqrt(x.denominator))
    context = Context(prec=60)
    return root if root**2 == x else Fraction(context.sqrt(_decimal(x, context)))


def _round(x: Fraction, digits: Fraction = Fraction(0)) -> Fraction | int:
    if digits.denominator != 1 or abs(digits) > DIGITS:
        raise UsageError(f"round takes a number and a whole number of digits, at most {DIGITS}")
    return round(x, int(digits)) if digits else round(x)


_FUNCTIONS: dict[str, Callable[..., Fraction | int]] = {
    "abs": abs,
    "max": max,
    "min": min,
    "round": _round,
    "sqrt": _sqrt,
}


def calculate(expression: str) -> str:
    """The value of an arithmetic expression such as `(12 + 3) * 4`: + - * / // % **, brackets, abs, max, min, round and
    sqrt.

    Raises:
        UsageError: it is no such expression, divides by zero, or a number becomes too large.
    """
    if len(expression) > MAX_CHARACTERS:
        raise UsageError(f"{len(expression)} characters are more than {MAX_CHARACTERS}; calculate in smaller steps")
    source = expression.strip().translate(_SPELLINGS)
    try:
        tree = ast.parse(source, mode="eval")
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, float):
                node.value = _as_written(ast.get_source_segment(source, node) or "")  # type: ignore[assignment]
        return _text(_value(tree.body))
    except UsageError:
        raise
    except ZeroDivisionError:
        raise UsageError("division by zero") from None
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise UsageError(f"{expression[:60]!r} is no arithmetic expression; write one such as (12 + 3) * 4") from None


def _value(node: ast.AST) -> Fraction:
    match node:
        case ast.Constant(value=int() | Fraction() as number) if not isinstance(number, bool):
            return _bounded(Fraction(number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_value(operand)
        case ast.UnaryOp(op=ast.UAdd(), operand=operand):
            return _value(operand)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left), _value(right))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _bounded(Fraction(_OPERATORS[type(op)](_value(left), _value(right))))
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in _FUNCTIONS:
            return _bounded(Fraction(_FUNCTIONS[name](*map(_value, args))))
    raise UsageError(f"only numbers, + - * / // % **, brackets and {', '.join(_FUNCTIONS)} are known")


def _as_written(literal: str) -> Fraction:
    """A decimal as it is written: 0.1 is a tenth, not the nearest float."""
    try:
        number = Decimal(literal)
        if number and abs(number.adjusted()) <= MAX_BITS // 3:
            return Fraction(number)
    except InvalidOperation:
        number = Decimal(1)
    if number:
        raise UsageError("a number is too large or too small")
    return Fraction(0)


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise UsageError("an exponent must be a whole number; for a root use sqrt")
    bits = max(base.numerator.bit_length(), base.denominator.bit_length())
    if abs(base) not in (0, 1) and bits * abs(exponent) > 2 * MAX_BITS:
        raise UsageError(f"the power has more than {MAX_BITS} bits")
    return _bounded(base ** (int(exponent) if abs(base) != 1 else int(exponent % 2)))


def _bounded(x: Fraction) -> Fraction:
    if max(x.numerator.bit_length(), x.denominator.bit_length()) > MAX_BITS:
        raise UsageError(f"a number has more than {MAX_BITS} bits")
    return x


def _text(x: Fraction) -> str:
    if x.denominator == 1:
        return str(x.numerator)
    rounded = _decimal(x, Context(prec=DIGITS)).normalize()
    return f"{rounded:f}" if -8 < rounded.adjusted() < DIGITS else str(rounded)


def _decimal(x: Fraction, context: Context) -> Decimal:
    return context.divide(Decimal(x.numerator), Decimal(x.denominator))
