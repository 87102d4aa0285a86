"""Digits to sort: rows made by code, the same on every machine."""

from __future__ import annotations

from glassformer.data.chats import ChatRow, chat_row

SIZES = {"train": 12_800, "validation": 512, "test": 512}
"""Rows of each split."""
_DIGITS = 61  # stream of random numbers


def sort_digits(n: int = 8) -> list[ChatRow]:
    """`31415926=` and the same digits in order, `11234569`: n digits a row. No row comes twice."""
    from glassformer.data.batches import philox  # which imports torch: `data list` needs the names alone

    rows: dict[str, ChatRow] = {}
    random = philox(0, _DIGITS, n)
    for split, count in SIZES.items():
        end = len(rows) + count
        while len(rows) < end:
            text = "".join(map(str, random.integers(0, 10, size=n)))
            fields = {"prompt": f"{text}=", "completion": "".join(sorted(text)), "split": split}
            rows.setdefault(text, chat_row(fields, f"sort-digits, row {len(rows) + 1}"))
    return [*rows.values()]
