"""Examples: a source and what should come of it, from a named set or from your own file.

    source                              what a line holds                        target
    en-fr, cmudict, reviews             (the sets of `example_sets.py`)
    file.jsonl, .ndjson, .json          {"source": ..., "target": ...}           the target sentence
                                        {"chosen": ..., "rejected": ...}         the rejected text (task.kind=reward)
                                        {"text": ..., "label": ...}              the label's name
                                        {"text": ...}                            ""
    file.tsv                            source <tab> target [<tab> split]        the target sentence, or the label
    file.csv                            a heading, such as text,label or smiles,label, and a row a line
    file.en,file.fr                     line n of one, line n of the other       the second file's line

A field `split` (train, validation, test) is the split of a line. Without one, a twentieth of the lines validates
and a twentieth tests, chosen by the hash of their source: the same lines each time, and equal sources together.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from glassformer.data.example_sets import EXAMPLE_SETS
from glassformer.data.example_splits import (
    HELD_OUT,
    SPLITS,
    Example,
    Examples,
    in_hash_order,
    references,
    split_by_group,
    spread,
)
from glassformer.data.json_lines import JSON_SUFFIXES, json_rows, missing_field, numbered_lines
from glassformer.data.tables import table_rows
from glassformer.errors import DataError, did_you_mean, plural
from glassformer.plugins import load_named, no_such

LINE_BYTES = 1 << 20
"""Longest line of a user's file."""


def load_examples(name_or_path: str | os.PathLike[str], *, quiet: bool = False) -> Examples:
    """The examples of a named set or of a file of your own, split in train, validation and test.

    Raises:
        DataError: no such set or file; a line is damaged, too long, or without its other half (file and line are
            named); fewer than three different sources; a set's packages cannot be fetched.
    """
    load_named()
    name = str(name_or_path)
    if name in EXAMPLE_SETS:
        return EXAMPLE_SETS[name].load(quiet=quiet)
    first, comma, second = name.partition(",")
    if comma and not Path(name).exists():
        if Path(first).suffix.lower() in JSON_SUFFIXES:
            raise DataError(
                f"{name}: two files together hold a sentence a line (one.en,two.fr), and {first} holds JSON; put all "
                "rows into one file"
            )
        rows: Iterable[_Row] = _line_pairs(_existing(first), _existing(second))
    else:
        path = _existing(name)
        readers = dict.fromkeys(JSON_SUFFIXES, _json) | {".tsv": _tsv, ".csv": _csv}
        if (suffix := path.suffix.lower()) not in readers:
            raise DataError(
                f"{path}: examples come from {', '.join(readers)} files, or two files of lines as one.en,two.fr"
            )
        rows = readers[suffix](path)
    return _by_split(rows, name)


FIELDS = (("source", "target"), ("chosen", "rejected"), ("text", "label"))
"""What a line of JSON may hold; chosen and rejected may have a prompt, with which both begin."""


COLUMNS = (("source", "text", "smiles"), ("target", "label"))
"""What the columns of a .csv file are called: of sources, of targets."""


class _Row(NamedTuple):
    example: Example
    split: str | None
    line: int


def _existing(name: str) -> Path:
    path = Path(name).expanduser()
    if not path.is_file():
        raise DataError(no_such(name, "file or set of examples", EXAMPLE_SETS))
    return path


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    return numbered_lines(path, LINE_BYTES)


def _json(path: Path) -> Iterator[_Row]:
    for where, number, row in json_rows(path, LINE_BYTES):
        names = next((names for names in FIELDS if any(name in row for name in names)), FIELDS[-1])
        for name in names[: 1 if names[1] == "label" else 2]:
            if name not in row:
                held = ", or ".join(f"{first} and {second}" for first, second in FIELDS)
                raise DataError(missing_field(where, row, name, f"a line holds {held}"))
        first, second = row[names[0]], row.get(names[1])
        if names[0] == "chosen" and isinstance(row.get("prompt"), str):
            first, second = (row["prompt"] + text if isinstance(text, str) else text for text in (first, second))
        yield _row(where, number, first, second, row.get("split"), names)


def _tsv(path: Path) -> Iterator[_Row]:
    width = 0
    for number, line in _lines(path):
        fields = line.split("\t")
        if number == 1 and fields[:2] in (["source", "target"], ["text", "label"]):
            width = len(fields)
            continue
        if not line.strip():
            continue
        width = width or len(fields)
        if width not in (2, 3) or len(fields) != width:
            found = plural(len(fields), "column")
            raise DataError(
                f"{path}:{number}: {found} between tabs; every line has source, target and, in all or in none, split"
            )
        split = fields[2] if width == 3 else None
        yield _row(f"{path}:{number}", number, fields[0], fields[1], split, ("source", "target"))


def _csv(path: Path) -> Iterator[_Row]:
    for where, number, row in table_rows(path, LINE_BYTES):
        source, target = (next((name for name in names if name in row), None) for names in COLUMNS)
        if source is None or target is None or set(row) - {source, target, "split"}:
            named = " and ".join(" or ".join(names) for names in COLUMNS)
            raise DataError(f"{path}: columns {', '.join(row)[:60]}; give {named} (and split), and no others")
        yield _row(where, number, row[source], row[target], row.get("split"), (source, target))


def _line_pairs(source: Path, target: Path) -> Iterator[_Row]:
    sources, targets = list(_lines(source)), list(_lines(target))
    if len(sources) != len(targets):
        raise DataError(
            f"{source} has {plural(len(sources), 'line')} and {target} {len(targets):,}: line n of one must translate "
            "line n of the other; put both in one .tsv"
        )
    for (number, one), (_, other) in zip(sources, targets, strict=True):
        if one.strip() or other.strip():
            empty = source if not one.strip() else target
            yield _row(f"{empty}:{number}", number, one, other, None, ("source", "target"))


def _row(where: str, number: int, source: object, target: object, split: object, names: tuple[str, str]) -> _Row:
    """One line's fields, checked."""
    if isinstance(target, (int, float)) and math.isfinite(target):  # labels are often numbers
        target = str(target)
    for name, value in zip(names, (source, target), strict=True):
        if value is None and name == "label":
            continue
        if not isinstance(value, str):
            raise DataError(f"{where}: the field {name!r} is {json.dumps(value)[:40]}, not text; mend the line")
        if not value.strip():
            raise DataError(f"{where}: the field {name!r} is empty; fill it or leave the line out")
    if split is not None and split not in SPLITS:
        raise DataError(f"{where}: split={str(split)[:40]!r} is unknown; {did_you_mean(str(split)[:40], SPLITS)}")
    return _Row(Example(str(source).strip(), str(target or "").strip()), None if split is None else str(split), number)


def _by_split(rows: Iterable[_Row], name: str) -> Examples:
    """The lines by their split; splits that no line names are held out of the training lines."""
    found: Examples = {split: [] for split in SPLITS}
    has_split: bool | None = None
    for example, split, line in rows:
        if has_split is None:
            has_split = split is not None
        if has_split != (split is not None):
            raise DataError(f"{name}:{line}: some lines have a split and some have none; give one to all or to none")
        found[split or "train"].append(example)
    parts = {split: 0.0 if found[split] else HELD_OUT for split in ("validation", "test")}
    if not any(parts.values()) or (has_split and not found["train"]):  # the file is to be measured on, all of it
        return in_hash_order(found)
    try:
        held = split_by_group([(example, example.source) for example in found["train"]], **parts)
    except DataError as error:
        raise DataError(
            f"{name}: too few examples to train on, validate and test; give three different ones"
        ) from error
    return in_hash_order({split: found[split] if parts.get(split) == 0.0 else held[split] for split in SPLITS})


__all__ = ["SPLITS", "Example", "Examples", "in_hash_order", "load_examples", "references", "split_by_group", "spread"]
