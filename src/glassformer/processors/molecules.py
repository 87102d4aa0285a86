"""Molecules to graphs: each atom is a token, and the steps along bonds between two atoms are their distance.

    processor = MoleculeProcessor()
    molecule = processor.encode("CCO")          # ids (3, 7), distances (3, 3): 0 1 2 / 1 0 1 / 2 1 0
    processor.names(molecule)                   # ['C0', 'C1', 'O2']

SMILES are read by RDKit (extra `molecules`). An atom is described by its element, bonds, charge, hydrogens,
aromaticity, hybridisation and smallest ring, and by nothing that depends on the order in which atoms are written.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from glassformer.errors import DataError, MissingExtraError, UsageError
from glassformer.processors.preprocessor_file import load_fields, save_fields

TYPE = "MoleculeProcessor"
MAX_ATOMS = 512
MAX_CHARACTERS = 5000
ELEMENTS = ("B", "C", "N", "O", "F", "Na", "Mg", "Si", "P", "S", "Cl", "K", "Ca", "As", "Se", "Br", "I")
OTHER = "other"
FEATURES: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("element", (*ELEMENTS, OTHER)),
    ("bonds", (0, 1, 2, 3, 4, OTHER)),
    ("charge", (-2, -1, 0, 1, 2, OTHER)),
    ("hydrogens", (0, 1, 2, 3, OTHER)),
    ("aromatic", (False, True)),
    ("hybridisation", ("SP", "SP2", "SP3", OTHER)),
    ("ring", (0, 3, 4, 5, 6, 7, OTHER)),
)
"""What is known of an atom, with the values that have a row of their own."""
SAVED = {"features": [name for name, _ in FEATURES]}


class Molecule(NamedTuple):
    """A graph as arrays: ids (N, 7) int64, distances (N, N) int64, -1 where no bonds lead; and its SMILES."""

    ids: np.ndarray
    distances: np.ndarray
    smiles: str


class MoleculeProcessor:
    """SMILES as graphs of atoms. There is nothing to be learned from data."""

    @property
    def row_names(self) -> list[str]:
        """What each row of the table of ids stands for."""
        return ["nothing", *(f"{name}={value}" for name, values in FEATURES for value in values)]

    @property
    def n_ids(self) -> int:
        """Rows of the table of ids."""
        return len(self.row_names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MoleculeProcessor)

    def __hash__(self) -> int:
        return hash(TYPE)

    def encode(self, smiles: Any) -> Molecule:
        """The graph of a molecule, without its hydrogens.

        Raises:
            DataError: it is no SMILES of a possible molecule, or too large. MissingExtraError: without RDKit.
        """
        molecule = read_smiles(smiles)
        rings = molecule.GetRingInfo()
        described = [
            (
                atom.GetSymbol(),
                atom.GetDegree(),
                atom.GetFormalCharge(),
                atom.GetTotalNumHs(),
                atom.GetIsAromatic(),
                atom.GetHybridization().name,
                rings.MinAtomRingSize(atom.GetIdx()),
            )
            for atom in molecule.GetAtoms()
        ]
        ids = np.array([_row(values) for values in described], dtype=np.int64)
        steps = chemistry().GetDistanceMatrix(molecule)
        distances = np.where(steps > MAX_ATOMS, -1, steps).astype(np.int64)
        return Molecule(ids, distances, str(smiles).strip())

    def decode(self, molecule: Molecule) -> str:
        """Its SMILES."""
        return molecule.smiles

    def arguments(self, molecules: Sequence[Molecule]) -> dict[str, np.ndarray]:
        """What a model is called with: ids (B, T, 7), lengths (B,) and distances (B, T, T)."""
        B, T = len(molecules), max(len(molecule.ids) for molecule in molecules)
        ids = np.zeros((B, T, len(FEATURES)), dtype=np.int64)
        distances = np.full((B, T, T), -1, dtype=np.int64)
        for row, molecule in enumerate(molecules):
            n = len(molecule.ids)
            ids[row, :n], distances[row, :n, :n] = molecule.ids, molecule.distances
        return {"inputs": ids, "lengths_B": np.array([len(m.ids) for m in molecules]), "distances_BTT": distances}

    def names(self, molecule: Molecule) -> list[str]:
        """Each atom by its element and its number in the SMILES."""
        elements = FEATURES[0][1]
        return [f"{elements[int(row[0]) - 1]}{number}" for number, row in enumerate(molecule.ids)]

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write preprocessor_config.json."""
        save_fields(folder, TYPE, SAVED)


def load_molecule_processor(folder: str | os.PathLike[str]) -> MoleculeProcessor | None:
    """The processor of a model folder; None where there is none.

    Raises:
        ModelFolderError: it is of another kind.
    """
    return load_fields(folder, TYPE, _processor_of)


def _processor_of(fields: dict[str, Any]) -> MoleculeProcessor:
    if fields != SAVED:
        raise UsageError(f"{fields} where {SAVED} is known")
    return MoleculeProcessor()


def read_smiles(smiles: Any) -> Any:
    """RDKit's molecule of a SMILES. Raises as `MoleculeProcessor.encode`."""
    text = str(smiles).strip()
    if len(text) > MAX_CHARACTERS:
        raise DataError(f"a SMILES of {len(text):,} characters; {MAX_CHARACTERS:,} at most: leave it out")
    if not text.isascii() or any(map(str.isspace, text)):  # RDKit takes what follows a space for a name
        raise DataError(f"{text[:60]!r} is no SMILES, which has ASCII characters and no space; give it alone")
    chem = chemistry()
    from rdkit import rdBase

    with rdBase.BlockLogs():
        molecule = chem.MolFromSmiles(text) if text else None
    if molecule is None or not molecule.GetNumAtoms():
        raise DataError(f"{text[:60]!r} is no SMILES of a possible molecule; mend it or leave it out")
    if molecule.GetNumAtoms() > MAX_ATOMS:
        raise DataError(f"{text[:40]!r}... has {molecule.GetNumAtoms():,} atoms; {MAX_ATOMS} at most: leave it out")
    return molecule


def scaffold_of(smiles: str) -> str:
    """The rings of a molecule and what joins them, as SMILES; "" without rings (Bemis and Murcko 1996,
    https://doi.org/10.1021/jm9602928)."""
    from rdkit.Chem.Scaffolds import MurckoScaffold

    return str(MurckoScaffold.MurckoScaffoldSmiles(mol=read_smiles(smiles), includeChirality=False))


def _row(values: Sequence[Any]) -> list[int]:
    """The ids of an atom: one of each feature."""
    ids, first = [], 1
    for (_, known), value in zip(FEATURES, values, strict=True):
        ids.append(first + (known.index(value) if value in known else len(known) - 1))
        first += len(known)
    return ids


def chemistry() -> Any:
    """RDKit's module of molecules. Raises `MissingExtraError` without RDKit."""
    try:
        from rdkit import Chem
    except ImportError:
        raise MissingExtraError("reading molecules", "molecules") from None
    return Chem
