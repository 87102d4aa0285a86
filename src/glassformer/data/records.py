"""Records: rows of named values of any kind, and what should come of them. A value is a number, a word or an image.

    breast-cancer, wine, diabetes        tables of scikit-learn
    digits-and-more                      a picture, two numbers and a word, whose sum decides (made here)
    file.csv, file.tsv                   a header, and one row a line
    file.jsonl, .ndjson, .json           one object a line

An empty cell, null or a missing field is no value: the record goes without it. An image is a path that ends as images
do, next to the file or absolute. A column `split` (train, validation, test) is the split of a row; without one a tenth
of the rows validates and a fifth tests, chosen by the hash of the row and of `shuffle`.
"""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from glassformer.archives import read_member
from glassformer.data.example_splits import SPLITS, split_by_group
from glassformer.data.images import IMAGE_SETS, load_images
from glassformer.data.json_lines import JSON_SUFFIXES, json_rows
from glassformer.data.tables import DELIMITERS, table_rows
from glassformer.errors import DataError, did_you_mean
from glassformer.fetch import PackageSource, fetch
from glassformer.plugins import no_such

VALIDATION, TEST = 0.1, 0.2
MAX_RECORDS, MAX_COLUMNS, LINE_BYTES = 1_000_000, 2_000, 1 << 20
TARGETS = ("label", "target")
"""What the target is called where nothing else is said; else the last column of a table."""


class Record(NamedTuple):
    """Values by the name of their column, without the missing ones, and the target as text."""

    values: dict[str, Any]
    target: str

    @property
    def key(self) -> str:
        """Changes when the record does."""
        values = {name: _key(value) for name, value in self.values.items()}
        return json.dumps([values, self.target], sort_keys=True)


Records = dict[str, list[Record]]
"""Records by the name of their split."""


@dataclass(frozen=True)
class RecordSet:
    """A named set of records. `read` gives pairs of a record and the group that stays together."""

    name: str
    about: str
    license: str
    source: PackageSource
    read: Callable[[Path], list[tuple[Record, str]]]
    count: int

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        return self.source.origin


def load_records(name_or_path: str, *, target: str | None = None, shuffle: int = 0, quiet: bool = False) -> Records:
    """The records of a set or a file by split.

    Args:
        target: the column to predict; None: `label`, `target`, or the last column of a table. shuffle: another number
            gives another random split.

    Raises:
        DataError: there is no such set or file; a row is damaged (file and line are named), or lacks its target.
    """
    if (known := RECORD_SETS.get(name_or_path)) is not None:
        if target is not None:
            raise DataError(f"{name_or_path} has its own target; leave task.target out")
        return _split(known.read(fetch(known.source, quiet=quiet)), shuffle)
    path = Path(name_or_path).expanduser()
    if not path.is_file():
        raise DataError(no_such(name_or_path, "file or set of records", RECORD_SETS))
    rows = list(_rows(path))
    if not rows:
        raise DataError(f"{path}: no records; give a header and some rows")
    names = list(dict.fromkeys(name for _, row in rows for name in row if name != "split"))
    if target is None:
        target = next((name for name in TARGETS if name in names), names[-1])
    if target not in names:
        raise DataError(f"{path}: no column {target!r}; {did_you_mean(target, names)}")
    found: dict[str | None, list[Record]] = {}
    for where, given in rows:
        row = {name: value for name, value in given.items() if value is not None and value != ""}
        split = row.pop("split", None)
        if split is not None and split not in SPLITS:
            raise DataError(f"{where}: split={str(split)[:40]!r}; {did_you_mean(str(split)[:40], SPLITS)}")
        if target not in row:
            raise DataError(f"{where}: no {target[:40]!r}, which is to be predicted; fill it or leave the row out")
        values = {name: _value(value, where, name, path.parent) for name, value in row.items() if name != target}
        found.setdefault(split, []).append(Record(values, _text(row[target])))
    if None not in found:
        if shuffle:
            raise DataError(f"{path} has splits of its own; leave task.shuffle out, or the column split")
        return {split: found.get(split, []) for split in SPLITS}
    if len(found) > 1:
        raise DataError(f"{path}: some rows have a split and some have none; give it to all or to none")
    return _split([(record, record.key) for record in found[None]], shuffle)


def _split(rows: list[tuple[Record, str]], shuffle: int) -> Records:
    salted = [(record, f"{shuffle} {group}" if shuffle else group) for record, group in rows]
    return split_by_group(salted, validation=VALIDATION, test=TEST)


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """(file and line, values that are there) of each row."""
    suffix = path.suffix.lower()
    if suffix in JSON_SUFFIXES:
        rows: Iterator[tuple[str, dict[str, Any]]] = ((where, row) for where, _, row in json_rows(path, LINE_BYTES))
    elif suffix in DELIMITERS:
        rows = ((where, dict(row)) for where, _, row in table_rows(path, LINE_BYTES))
    else:
        raise DataError(f"{path}: records come from .csv, .tsv and {', '.join(JSON_SUFFIXES)} files; convert it")
    for count, (where, row) in enumerate(rows):
        if count >= MAX_RECORDS or len(row) > MAX_COLUMNS:
            raise DataError(f"{where}: more than {MAX_RECORDS:,} rows or {MAX_COLUMNS:,} columns; give a part of them")
        yield where, row


def _value(value: Any, where: str, name: str, folder: Path) -> Any:
    """A value of a file: a finite number, a word, or the path of an image."""
    from glassformer.processors.set_parts import IMAGE_SUFFIXES  # `glassformer data list` reads this file without numpy

    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str) and value.lower().endswith(IMAGE_SUFFIXES):
        return folder / value
    if not isinstance(value, (int, float, str)):
        raise DataError(
            f"{where}: {name[:40]!r} is {json.dumps(value)[:40]}; give a number, a word or the path of an image"
        )
    number = as_number(value)
    if number is not None and not math.isfinite(number):
        raise DataError(
            f"{where}: {name[:40]!r} is {str(value)[:40]}, no finite number; leave it empty where nothing is known"
        )
    return value


def as_number(value: Any) -> float | None:
    """The number of a value; None: it is none."""
    try:
        return None if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _key(value: Any) -> str:
    """What a value is recognised by; of an image's path also its size and time."""
    if isinstance(value, Path):
        stat = value.stat() if value.is_file() else None
        return f"{value.name} {stat and (stat.st_size, stat.st_mtime_ns)}"
    return value.tobytes().hex() if hasattr(value, "tobytes") else str(value)


def _numbers(archive: Path, name: str) -> list[list[str]]:
    """The cells of a table of scikit-learn's."""
    content = read_member(archive, f"scikit_learn-1.7.2/sklearn/datasets/data/{name}")
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode("ascii")
    return [line.replace(",", " ").split() for line in text.splitlines()]


def _classes(file: str, columns: list[str], classes: list[str]) -> Callable[[Path], list[tuple[Record, str]]]:
    """A reader of a table whose first line is no row, and whose last cell is the number of a class."""

    def read(archive: Path) -> list[tuple[Record, str]]:
        rows = [(dict(zip(columns, cells, strict=False)), cells[-1]) for cells in _numbers(archive, file)[1:]]
        return [(Record(row, classes[int(last)]), f"{number}") for number, (row, last) in enumerate(rows)]

    return read


def _diabetes(archive: Path) -> list[tuple[Record, str]]:
    columns = ["age", "sex", "bmi", "blood_pressure", "tc", "ldl", "hdl", "tch", "ltg", "glucose"]
    both = zip(*(_numbers(archive, f"diabetes_{part}.csv.gz") for part in ("data_raw", "target")), strict=True)
    return [(Record(dict(zip(columns, row, strict=True)), y[0]), str(i)) for i, (row, y) in enumerate(both)]


WORDS = {"few": 0, "some": 4, "many": 8}
"""What the words of `digits-and-more` add."""
DRAWN_PER_DIGIT = 4


def _digits_and_more(archive: Path) -> list[tuple[Record, str]]:
    """Each digit with numbers and words drawn four times: more, where digit + plus - minus + word exceeds 8."""
    from glassformer.data.batches import philox

    images, _ = load_images("digits", quiet=True)
    records = []
    for image in sorted(
        (image for rows in images.values() for image in rows), key=lambda image: int(image.key.split()[1])
    ):
        random = philox(17, 1, int(image.key.split()[1]))
        for _ in range(DRAWN_PER_DIGIT):
            plus, minus = (int(n) for n in random.integers(0, 10, size=2))
            word = list(WORDS)[int(random.integers(len(WORDS)))]
            more = digit_sum(int(image.label), plus, minus, word) > 8
            values = {"picture": image.image, "plus": plus, "minus": minus, "word": word}
            records.append((Record(values, "more" if more else "less"), image.key))
    return records


def digit_sum(digit: int, plus: int, minus: int, word: str) -> int:
    """What decides the label of a record of `digits-and-more`."""
    return digit + plus - minus + WORDS[word]


_CANCER = "radius texture perimeter area smoothness compactness concavity concave_points symmetry fractal_dimension"
_WINE = (
    "alcohol malic_acid ash alcalinity magnesium phenols flavanoids nonflavanoid_phenols proanthocyanins color hue "
    "od280 proline"
)
_SOURCE = IMAGE_SETS["digits"].source

RECORD_SETS: dict[str, RecordSet] = {
    chosen.name: chosen
    for chosen in (
        RecordSet(
            name="breast-cancer",
            about="30 measures of the cell nuclei of 569 tumours, malignant or benign (Wolberg et al. 1995)",
            license="CC BY 4.0 (the table); BSD-3-Clause (scikit-learn, which includes it)",
            source=_SOURCE,
            read=_classes(
                "breast_cancer.csv",
                [f"{of}_{name}" for of in ("mean", "error", "worst") for name in _CANCER.split()],
                ["malignant", "benign"],
            ),
            count=569,
        ),
        RecordSet(
            name="wine",
            about="13 measures of 178 wines of three growers (Forina et al. 1991)",
            license="CC BY 4.0 (the table); BSD-3-Clause (scikit-learn, which includes it)",
            source=_SOURCE,
            read=_classes("wine_data.csv", _WINE.split(), ["first", "second", "third"]),
            count=178,
        ),
        RecordSet(
            name="diabetes",
            about="10 measures of 442 patients, and how their diabetes went on a year later (Efron et al. 2004)",
            license="BSD-3-Clause (scikit-learn, which includes it)",
            source=_SOURCE,
            read=_diabetes,
            count=442,
        ),
        RecordSet(
            name="digits-and-more",
            about="a handwritten digit, two numbers and a word: is digit + plus - minus + word more than 8?",
            license=IMAGE_SETS["digits"].license,
            source=_SOURCE,
            read=_digits_and_more,
            count=DRAWN_PER_DIGIT * 1_797,
        ),
    )
}
