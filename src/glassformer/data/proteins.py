"""Proteins as amino acids, and where in the cell they are found: 19,074 sequences of UniProtKB, in 13 classes.

    MTVPPLLKSCVVKLLLPAALLAAAIIRPSF...      Membrane

SCL2205 (Ouso 2025), release 2022_05 of UniProtKB, out of the package `p-scldata`. Its splits keep apart what is alike
(homology reduction), so that a test protein has no near relative among those that are learned from. Four of the classes
are proteins found in several places at once.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from glassformer.archives import read_members
from glassformer.data.example_splits import Example, Examples
from glassformer.errors import DataError
from glassformer.fetch import PackageSource

SCLDATA = PackageSource(
    "p-scldata",
    "2026.2.0",
    "2e7c8a3991b9aea334ac583c36e6610f8a41324d9a5ecc5a10415b9591d743e4",
    license="MIT (the package); CC BY 4.0 (UniProtKB)",
    sdist=True,  # the wheel has no data
)
FILES = ("scl2205.csv", "entries.json", "labels.json", "splits.json")
NAMES = {"train": "trn", "validation": "vld", "test": "tst"}


def read_protein_locations(archive: Path) -> Examples:
    """The sequences and the names of their places, by the package's own splits.

    Raises:
        DataError: a file is missing, or of another form.
    """
    found = {name.rpartition("/")[2]: content for name, content in read_members(archive, lambda n: n.endswith(FILES))}
    try:
        rows = {row["entry"]: row for row in csv.DictReader(found[FILES[0]].decode("ascii").splitlines())}
        entries, labels, splits = (json.loads(found[name]) for name in FILES[1:])
        names = labels["index_to_label"]
        return {
            split: [
                Example(rows[entry]["seq"], names[rows[entry]["scl"]])
                for entry in (entries[str(number)] for number in splits[name])
            ]
            for split, name in NAMES.items()
        }
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{archive}: not the files of p-scldata ({error!r}); delete it and fetch again") from None
