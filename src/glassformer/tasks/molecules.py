"""Molecules as graphs: atoms are tokens, and a layer attends along the bonds where its mask is `graph(n)`.

CCO ──atoms──► C C O ──► blocks ──mean──► a class, or a number such as the solubility
    ──bonds──► distances ──model.patterns──► who attends to whom: graph(1) neighbours, graph(2) two bonds, full: all
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

from pydantic import Field

from glassformer.data.examples import load_examples, spread
from glassformer.data.molecules import by_scaffold
from glassformer.errors import DataError, UsageError
from glassformer.processors.molecules import MAX_ATOMS, MoleculeProcessor
from glassformer.tasks.base import Batches, Opening
from glassformer.tasks.examples import ExampleTask
from glassformer.tasks.regression import Regression
from glassformer.tasks.sets import Sets
from glassformer.tasks.settings import Choice, DataSettings, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource, check_targets, classes_of


class MoleculeSettings(TaskSettings):
    """[task] of `classify_molecules` and `regress_molecules`."""

    shuffle: int | None = Field(default=None, ge=0)
    """split all molecules again by scaffold, in another way for another number; None: the splits of the data"""


@dataclass(kw_only=True)
class MoleculeSource(SplitSource):
    """SMILES with targets by split."""

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation molecule does."""
        return self.digest(tuple)

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that molecules decide."""
        n_ids = MoleculeProcessor().n_ids
        return {"stem": "graph", "vocab_size": n_ids, "block_size": MAX_ATOMS, "n_classes": len(self.labels)}


class Molecules(Sets):
    """What both tasks share. A batch is (ids (B, T, 7), lengths_B, distances (B, T, T), targets_B)."""

    Settings = MoleculeSettings
    reads: ClassVar[str] = "graph"
    inputs: ClassVar[tuple[str, ...]] = ("inputs", "lengths_B", "distances_BTT")
    source: MoleculeSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> MoleculeSource:  # type: ignore[override]
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("graphs have no tokenizer; leave out the keys of [tokenizer]")
        examples = load_examples(data.source)
        if asked.shuffle is not None:
            examples = by_scaffold([row for rows in examples.values() for row in rows], asked.shuffle)
        if data.max_examples:
            examples = {**examples, "train": spread(examples["train"], data.max_examples)}
        labels = cls.labels_of(examples["train"], opening.labels)
        return MoleculeSource(name=data.source, examples=examples, labels=labels)

    @classmethod
    def labels_of(cls, examples: Sequence[Any], known: tuple[str, ...]) -> tuple[str, ...]:
        return classes_of((example.target for example in examples), known)

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        raise DataError(f"{data.source} is read as molecules and not as text")

    @property
    def processor(self) -> Any:
        return MoleculeProcessor()

    def facts(self) -> dict[str, Any]:
        return ExampleTask.facts(self)

    def encode(self, split: str, T: int) -> list[Any]:
        """(molecule, target)."""
        examples = self.source.examples[split]
        check_targets(examples, "target")
        graphs = [self.processor.encode(example.source) for example in examples]
        return [*zip(graphs, self.target_values(split), strict=True)]

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        return ExampleTask.batches(self, split, rank, world_size)

    def shown(self, example: Any) -> str:
        """Its SMILES, or the beginning."""
        smiles: str = example[0].smiles
        return smiles if len(smiles) <= 60 else smiles[:57] + "..."

    def extra_scores(self, model: Any, split: str = "validation") -> None:
        return None


class ClassifyMolecules(Molecules):
    """Cross-entropy over classes of molecules."""

    asks: ClassVar[str] = "class"
    command: ClassVar[str] = "classify"


class RegressMolecules(Regression, Molecules):
    """Squared error of a property of molecules."""

    placeholders = None

    def numbers(self, model: Any, batch: Any) -> Any:
        return model.number(*self.vectors(model, batch))

    def shown(self, example: Any) -> str:
        return Molecules.shown(self, example)
