"""Sums of two numbers of 1 to 12 digits, with and without every carry in writing: rows made by code, the same on every
machine.

addition-plain         583+274=  857
addition-scratchpad    583+274=  <scratchpad>3+4+0=07,8+7+0=15,5+2+1=08</scratchpad>857
addition-columns       58+27=    15,08>85    two digits each: the sums of the columns, then the answer
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from glassformer.data.chats import ChatRow, chat_row
from glassformer.scratchpad import CLOSE, OPEN

MOST_DIGITS = 12
TRAIN, HELD_OUT = 60_000, 200
COUNT = TRAIN + (MOST_DIGITS - 1) * (HELD_OUT + HELD_OUT // 2) + HELD_OUT // 10 + HELD_OUT // 20


def steps_of_sum(a: int, b: int) -> str:
    """A sum in writing, from the last digit on: digit + digit + carry = new carry and digit.

    >>> steps_of_sum(583, 274)
    '3+4+0=07,8+7+0=15,5+2+1=08'
    """
    carry, steps = 0, []
    width = max(len(str(a)), len(str(b)))
    for x, y in zip(f"{a:0{width}}"[::-1], f"{b:0{width}}"[::-1], strict=True):
        total = int(x) + int(y) + carry
        steps.append(f"{x}+{y}+{carry}={total:02}")
        carry = total // 10
    return ",".join(steps)


def addition(*, scratchpad: bool, train: int = TRAIN, held_out: int = HELD_OUT, seed: int = 5) -> list[ChatRow]:
    """Sums of two numbers of n digits, every n from 1 to 12 alike; no sum comes twice.

    held_out: sums of each n that test, and half as many that validate (a tenth for one digit, of which there are
    100). Columns: `answer` and `digits`.
    """
    rng, known = random.Random(seed), set[tuple[int, int]]()
    name = f"addition-{'scratchpad' if scratchpad else 'plain'}"
    places = _places(rng, train, held_out)
    return [chat_row(_row(rng, known, *place, scratchpad), f"{name}, row {n}") for n, place in enumerate(places, 1)]


COLUMN_SIZES = {"validation": 512, "test": 512, "train": 90 * 90 - 2 * 512}
"""Rows of the splits of `addition-columns`: all sums of two digits."""


def addition_columns(seed: int = 7) -> list[ChatRow]:
    """All sums of two numbers of two digits, each once, with the sum of every column (and its carry) first. Columns:
    `answer`."""
    rng, known, found = random.Random(seed), set[tuple[int, int]](), list[ChatRow]()
    for split in (split for split, n in COLUMN_SIZES.items() for _ in range(n)):
        while (pair := (rng.randrange(10, 100), rng.randrange(10, 100))) in known:
            pass
        known.add(pair)
        columns = ",".join(step.split("=")[1] for step in steps_of_sum(*pair).split(","))
        answer = str(sum(pair))
        row = {"prompt": "{}+{}=".format(*pair), "completion": f"{columns}>{answer}", "answer": answer, "split": split}
        found.append(chat_row(row, f"addition-columns, row {len(found) + 1}"))
    return found


def _places(rng: random.Random, train: int, held_out: int) -> Iterator[tuple[int, str]]:
    """(digits, split) of every row."""
    left = 100 - held_out // 10 - held_out // 20  # sums of one digit
    for split, n in (("test", held_out), ("validation", held_out // 2)):
        for digits in range(1, MOST_DIGITS + 1):
            yield from [(digits, split)] * (n if digits > 1 else n // 10)
    for _ in range(train):
        digits = rng.randint(1 if left > 0 else 2, MOST_DIGITS)
        left -= digits == 1
        yield digits, "train"


def _row(
    rng: random.Random, known: set[tuple[int, int]], digits: int, split: str, scratchpad: bool
) -> dict[str, str | int]:
    low = 10 ** (digits - 1) if digits > 1 else 0
    while (pair := (rng.randrange(low, 10**digits), rng.randrange(low, 10**digits))) in known:
        pass
    known.add(pair)
    answer = str(sum(pair))
    pad = f"{OPEN}{steps_of_sum(*pair)}{CLOSE}" if scratchpad else ""
    return {
        "prompt": "{}+{}=".format(*pair),
        "completion": pad + answer,
        "answer": answer,
        "digits": digits,
        "split": split,
    }
