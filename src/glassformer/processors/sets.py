"""Records to sets and back: each value becomes a member, an image becomes its patches.

    processor = SetProcessor.fit(records, image_size=8, patch_size=4)
    members = processor.encode({"picture": pixels, "plus": 3, "word": "few"})
    processor.names(members)       # ['picture 0,0', 'picture 0,1', ..., 'plus=3', 'word=few']

A member is two ids and some numbers. The first id says which member it is (which column, which patch), the second one
which word it holds. The numbers of a column stand in places of their own; those of all other columns are 0 there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.processors.preprocessor_file import load_fields, save_fields
from glassformer.processors.set_parts import Part
from glassformer.text_files import JsonError, parse_json

TYPE = "SetProcessor"
MAX_MEMBERS = 4096
"""Of one set."""


class Members(NamedTuple):
    """A set as arrays: ids (T, 2) int64, numbers (T, I) fp32."""

    ids: np.ndarray
    numbers: np.ndarray


@dataclass(frozen=True)
class SetProcessor:
    """Records with these columns as sets."""

    parts: tuple[Part, ...]
    places: dict[str, tuple[int, int, int]] = field(init=False, repr=False, compare=False)
    """of each part: its first member's id, its first word's id, its first number"""

    def __post_init__(self) -> None:
        places, word, number = {}, 1 + self.n_members, 0
        member = 1
        for part in self.parts:
            places[part.name] = member, word, number
            member, word, number = member + part.members, word + len(part.words), number + part.width
        object.__setattr__(self, "places", places)
        if len(places) != len(self.parts) or not places or self.n_members > MAX_MEMBERS:
            raise UsageError(f"{len(self.parts)} columns, {self.n_members} members: 1 to {MAX_MEMBERS}, each by a name")

    @property
    def n_members(self) -> int:
        """Of the largest set."""
        return sum(part.members for part in self.parts)

    @property
    def n_ids(self) -> int:
        """Rows of the table of ids: "nothing here", the members, the words."""
        return 1 + self.n_members + sum(len(part.words) for part in self.parts)

    @property
    def n_numbers(self) -> int:
        """Numbers of each member."""
        return sum(part.width for part in self.parts)

    @property
    def row_names(self) -> list[str]:
        """What each row of the table of ids stands for."""
        names = ["nothing"]
        for part in self.parts:
            across = part.size // part.patch if part.kind == "image" else 1
            places = [f"{part.name} {i // across},{i % across}" for i in range(part.members)]
            names += places if part.kind == "image" else [part.name]
        return names + [f"{part.name}={word}" for part in self.parts for word in part.words]

    @classmethod
    def fit(
        cls,
        records: Sequence[Mapping[str, Any]],
        *,
        words: Sequence[str] = (),
        image_size: int | None = None,
        patch_size: int = 4,
    ) -> SetProcessor:
        """From the records that a model learns from: a column of which all values are numbers is one of numbers.

        Args:
            words: columns whose numbers are names and no amounts. image_size: what images are resized to; None: the
                shorter side of the first one.

        Raises:
            DataError: a column mixes images with other values, or has too many different words.
            UsageError: there is no such column.
        """
        columns: dict[str, list[Any]] = {}
        for record in records:
            for name, value in record.items():
                columns.setdefault(name, []).append(value)
        if unknown := next((name for name in words if name not in columns), None):
            raise UsageError(f"task.words: no column {unknown!r}; {did_you_mean(unknown, columns)}")
        return cls(
            tuple(
                Part.fit(name, values, as_words=name in words, image_size=image_size, patch_size=patch_size)
                for name, values in columns.items()
            )
        )

    def encode(self, record: Any) -> Members:
        """A record as a set. What is missing is left out.

        Args:
            record: values by name, or JSON of them.

        Raises:
            DataError: it is no record, has an unknown column, or a value is not of its column's kind; or none is left.
        """
        record = _record_of(record)
        if unknown := next((name for name in record if name not in self.places), None):
            raise DataError(
                f"a record has {unknown[:40]!r}, which was not learned; {did_you_mean(unknown[:40], self.places)}"
            )
        ids, numbers = [], []
        for part in self.parts:
            value = record.get(part.name)
            if value is None or (isinstance(value, str) and not value):
                continue
            member, word, number = self.places[part.name]
            for offset, (own_word, values) in enumerate(part.encode(value)):
                row = np.zeros(self.n_numbers, dtype=np.float32)
                row[number : number + part.width] = values
                ids.append((member + offset, 0 if own_word is None else word + own_word))
                numbers.append(row)
        if not ids:
            raise DataError("a record has no value that is known; give one at least")
        return Members(np.array(ids, dtype=np.int64), np.stack(numbers))

    def arguments(self, sets: Sequence[Members]) -> dict[str, np.ndarray]:
        """What a model is called with: ids (B, T, 2), lengths (B,) and numbers (B, T, I), T members of the largest."""
        B, T = len(sets), max(len(members.ids) for members in sets)
        ids = np.zeros((B, T, 2), dtype=np.int64)
        numbers = np.zeros((B, T, self.n_numbers), dtype=np.float32)
        for row, members in enumerate(sets):
            ids[row, : len(members.ids)], numbers[row, : len(members.ids)] = members
        return {"inputs": ids, "lengths_B": np.array([len(m.ids) for m in sets]), "numbers_BTI": numbers}

    def decode(self, members: Members) -> dict[str, Any]:
        """The record of a set: numbers, words, and images as `PIL.Image`."""
        record: dict[str, Any] = {}
        for part, rows in ((part, self.rows_of(part.name, members)) for part in self.parts):
            if not rows.any():
                continue
            _, word, number = self.places[part.name]
            values = np.asarray(members.numbers)[rows, number : number + part.width]
            if part.kind == "word":
                record[part.name] = part.words[int(members.ids[rows][0, 1]) - word]
            elif part.kind == "number":
                record[part.name] = part.amount(values[0, 0])
            else:
                record[part.name] = part.images.decode(part.pixels_of(values))
        return record

    def names(self, members: Members) -> list[str]:
        """What each member is, to be shown."""
        shown = []
        for own, row in zip(members.ids.tolist(), members.numbers, strict=True):
            part = next(part for part in reversed(self.parts) if self.places[part.name][0] <= own[0])
            member, word, number = self.places[part.name]
            if part.kind == "image":
                across = part.size // part.patch
                shown.append(f"{part.name} {(own[0] - member) // across},{(own[0] - member) % across}")
            elif part.kind == "word":
                shown.append(f"{part.name}={part.words[own[1] - word]}")
            else:
                shown.append(f"{part.name}={part.amount(row[number]):.4g}")
        return shown

    def rows_of(self, name: str, members: Members) -> np.ndarray:
        """Which members belong to a part: (T,) bool."""
        first = self.places[name][0]
        n = next(part.members for part in self.parts if part.name == name)
        own = np.asarray(members.ids)[:, 0]
        return (own >= first) & (own < first + n)

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        save_fields(folder, TYPE, {"parts": [asdict(part) for part in self.parts]})


def load_set_processor(folder: str | os.PathLike[str]) -> SetProcessor | None:
    """The processor of a model folder; None where there is none.

    Raises:
        ModelFolderError: it is damaged.
    """
    return load_fields(folder, TYPE, _processor_of)


def _processor_of(fields: dict[str, Any]) -> SetProcessor:
    return SetProcessor(tuple(Part(**{**part, "words": tuple(part.get("words", ()))}) for part in fields["parts"]))


def _record_of(record: Any) -> Mapping[str, Any]:
    if isinstance(record, str):
        try:
            record = parse_json(record)
        except JsonError as error:
            raise DataError(
                f'a record is JSON such as {{"age": 3, "word": "few"}}, and this is none ({error})'
            ) from None
    if not isinstance(record, Mapping):
        raise DataError(f"a record has named values, and {json.dumps(record, default=str)[:40]} has none")
    return record
