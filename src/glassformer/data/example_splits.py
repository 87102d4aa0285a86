"""One example, and examples by split: held-out parts that keep groups together, random samples, references."""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NamedTuple, TypeVar

from glassformer.errors import DataError, plural

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.05
"""The part of a user's own examples that validates, and again that tests."""
Item = TypeVar("Item")


class Example(NamedTuple):
    """One example as text: `target` is a sentence, a label's name, or "" where there is only text."""

    source: str
    target: str = ""


Examples = dict[str, list[Example]]
"""Examples by the name of their split: train, validation, test."""


def spread(rows: Sequence[Item], n: int) -> list[Item]:
    """`n` of the rows, evenly over the whole, which may be sorted by something; all of them where there are fewer."""
    n = min(n, len(rows))
    return [rows[i * len(rows) // n] for i in range(n)]


def references(examples: Iterable[Example]) -> dict[str, list[str]]:
    """All targets of each source, in order: what an answer may be compared with.

    >>> references([Example("read", "R IY D"), Example("read", "R EH D")])
    {'read': ['R IY D', 'R EH D']}
    """
    found: dict[str, list[str]] = {}
    for source, target in examples:
        if target not in found.setdefault(source, []):
            found[source].append(target)
    return found


def split_by_group(
    rows: Sequence[tuple[Item, str]],
    *,
    validation: float = HELD_OUT,
    test: float = HELD_OUT,
    start: float = 0.0,
) -> dict[str, list[Item]]:
    """Examples with the name of their group (a file, a word), split so that no group is torn.

    Groups stand in the order of the SHA-256 of their names; the first ones test and the next ones validate, until each
    split holds its part of the examples; at least one group each, unless its part is 0. The order within a split is
    that of `rows`. start: so far into that order the first ones stand, as a share of the examples; what is before comes
    last.

    Raises:
        DataError: fewer groups than splits.
    """
    parts = {split: part for split, part in (("test", test), ("validation", validation)) if part > 0}
    sizes: dict[str, int] = {}
    for _, group in rows:
        sizes[group] = sizes.get(group, 0) + 1
    if len(sizes) <= len(parts):
        needing = ", ".join(["train", *parts])
        raise DataError(f"{plural(len(sizes), 'group')} of examples; {needing} need one each: give more")
    home: dict[str, str] = {}
    groups = sorted(sizes, key=_digest)
    first = bisect_right(list(accumulate(sizes[group] for group in groups)), round(start * len(rows)))
    groups = groups[first:] + groups[:first]
    for split, part in parts.items():
        wanted, held = part * len(rows), 0
        while not held or held < wanted:
            if len(groups) == 1:
                break
            held += sizes[group := groups.pop(0)]
            home[group] = split
    found: dict[str, list[Item]] = {split: [] for split in SPLITS}
    for example, group in rows:
        found[home.get(group, "train")].append(example)
    return found


def split_strata(rows: Sequence[tuple[Item, str, str]], **parts: float) -> dict[str, list[Item]]:
    """Examples with their group and stratum (a class): `split_by_group` of each stratum, so that every split holds its
    part of each."""
    strata: dict[str, list[tuple[Item, str]]] = {}
    for item, group, stratum in rows:
        strata.setdefault(stratum, []).append((item, group))
    splits = [split_by_group(stratum, **parts) for stratum in strata.values()]
    return {split: [item for found in splits for item in found[split]] for split in SPLITS}


def in_hash_order(examples: Examples) -> Examples:
    """The held-out examples in the order of the hashes of their sources: the first n of them are a random sample, and
    examples of one source stay together. Training examples stay as they are."""
    return {
        split: rows if split == "train" else sorted(rows, key=lambda e: _digest(e.source))
        for split, rows in examples.items()
    }


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
