"""Sets of mixed members: a picture, a few numbers and a word go in as one set, and a class or a number comes out.

picture ──patches──► members ┐
age=3   ──number───► member  ├─ no order ──► encoder ──mean──► class, or number
word=few ──────────► member  ┘

In training, each part is left out with the probability `drop`, so that the model knows what to do without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import BeforeValidator, Field
from torch import Tensor

from glassformer.data.example_batches import in_order
from glassformer.data.example_splits import spread
from glassformer.data.records import Record, load_records
from glassformer.errors import UsageError
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.rows import evaluate_rows
from glassformer.figures.primitives import Column, Figure, Table
from glassformer.processors.sets import Members, SetProcessor, load_set_processor
from glassformer.tasks.base import Batch, Batches, Opening
from glassformer.tasks.examples import EVAL_ROWS, NonTextTask
from glassformer.tasks.regression import Regression, error_metrics
from glassformer.tasks.settings import Choice, TaskSettings, TokenizerSettings
from glassformer.tasks.sources import SplitSource, classes_of, numbers_of

MOST_PARTS_SHOWN = 12
"""Parts of which `evaluate` leaves out each."""


def _listed(given: Any) -> Any:
    """`task.words=zip,sex` on the command line is a list too."""
    return tuple(text.strip() for text in given.split(",")) if isinstance(given, str) else given


class SetSettings(TaskSettings):
    """[task] of `classify_sets` and `regress_sets`."""

    target: str | None = Field(default=None, min_length=1)
    """the column to predict; None: `label`, `target`, or the last one"""
    words: Annotated[tuple[str, ...], BeforeValidator(_listed)] = Field(default=(), max_length=1000)
    """columns whose numbers are names and no amounts, such as postal codes"""
    shuffle: int = Field(default=0, ge=0)
    """another number splits the records in another way"""
    drop: float = Field(default=0.2, ge=0, lt=1)
    """the probability with which each part of a training record is left out; one part always stays"""
    image_size: int | None = Field(default=None, ge=1, le=1024)
    """height and width that images are resized to; None: those of the first image"""
    patch_size: int = Field(default=4, ge=1, le=1024)
    """height and width of the patches that images are cut into"""


@dataclass(kw_only=True)
class SetSource(SplitSource):
    """Records by split, and what makes sets of them."""

    processor: SetProcessor

    @cached_property
    def key(self) -> str:
        """Changes when a training or validation record, or how it is read, does."""
        return self.digest(lambda record: (record.key,), begin=repr(self.processor))

    def fields(self) -> dict[str, Any]:
        """The fields of a configuration that the records decide."""
        p = self.processor
        fields = {"stem": "set", "vocab_size": p.n_ids, "n_inputs": p.n_numbers, "block_size": p.n_members}
        return {**fields, "n_classes": len(self.labels)}


class Sets(NonTextTask):
    """What both tasks share. A batch is (ids (B, T, 2), lengths_B, numbers (B, T, I), targets_B)."""

    holds: ClassVar[str] = "records"
    Settings: ClassVar[Any] = SetSettings
    reads: ClassVar[str] = "set"
    inputs: ClassVar[tuple[str, ...]] = ("inputs", "lengths_B", "numbers_BTI")  # of the model, in the order of a batch
    defaults: ClassVar[Mapping[str, Any]] = {}  # the records decide the number of members
    placeholders: ClassVar[Mapping[str, Any] | None] = None
    source: SetSource  # type: ignore[assignment]

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> SetSource:
        data, asked = opening.data, cls.Settings.make(**opening.settings)
        if opening.tokenizer != TokenizerSettings():
            raise UsageError("records have no tokenizer; leave out the keys of [tokenizer]")
        records = load_records(data.source, target=asked.target, shuffle=asked.shuffle)
        if data.max_examples:
            records = {**records, "train": spread(records["train"], data.max_examples)}
        if opening.folder is not None:
            loaded = load_set_processor(opening.folder)
            if loaded is None:
                raise UsageError(f"{opening.folder}: no processor of sets, so no model of them; start from another")
            processor = loaded
        else:
            values = [record.values for record in records["train"]]
            sizes = {"image_size": asked.image_size, "patch_size": asked.patch_size}
            processor = SetProcessor.fit(values, words=asked.words, **sizes)  # type: ignore[arg-type]
        labels = cls.labels_of(records["train"], opening.labels)
        return SetSource(name=data.source, examples=records, processor=processor, labels=labels)

    @classmethod
    def labels_of(cls, examples: Sequence[Any], known: tuple[str, ...]) -> tuple[str, ...]:
        return classes_of((record.target for record in examples), known)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "columns": {part.name: part.kind for part in self.processor.parts}}

    def target_values(self, split: str) -> list[Any]:
        """The targets of a split, as `collate` takes them."""
        return numbers_of([record.target for record in self.source.examples[split]], self.labels)

    def encode(self, split: str, T: int) -> list[tuple[Members, Any]]:
        """(members, target)."""
        records: Sequence[Record] = self.source.examples[split]
        sets = [self.processor.encode(record.values) for record in records]
        return [*zip(sets, self.target_values(split), strict=True)]

    def collate(self, examples: Sequence[tuple[Members, Any]], random: np.random.Generator | None = None) -> Batch:
        """(members, target) pairs -> a batch."""
        parts = self.processor.arguments([members for members, _ in examples])
        return *(torch.from_numpy(parts[name]) for name in self.inputs), torch.tensor(
            [target for _, target in examples]
        )

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        """As of any task on examples, but each training record goes without some of its parts."""
        batches: Any = super().batches(split, rank, world_size)
        if split == "train" and self.settings.drop:
            batches.collate, batches.by_chance = self.collate_dropped, True
        return batches  # type: ignore[no-any-return]

    def collate_dropped(self, examples: Sequence[tuple[Members, Any]], random: np.random.Generator) -> Batch:
        """As `collate`, each part left out with the probability `drop`."""
        return self.collate([(self.with_parts(members, self.kept(members, random)), y) for members, y in examples])

    def kept(self, members: Members, random: np.random.Generator) -> list[str]:
        """The parts that stay: one at least."""
        names = self.present(members)
        stays = random.random(len(names)) >= self.settings.drop
        stays[random.integers(len(names))] |= not stays.any()
        return [name for name, stay in zip(names, stays, strict=True) if stay]

    def present(self, members: Members) -> list[str]:
        """The parts that a set has members of."""
        return [part.name for part in self.processor.parts if self.processor.rows_of(part.name, members).any()]

    def with_parts(self, members: Members, names: Sequence[str]) -> Members:
        """The members of these parts alone."""
        rows = np.any([self.processor.rows_of(name, members) for name in names], axis=0)
        return Members(members.ids[rows], members.numbers[rows])

    def vectors(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """Vectors (B, T, C) and lengths (B,)."""
        return model(**dict(zip(self.inputs, batch, strict=False))), batch[1]

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """(B, classes)."""
        logits: Tensor = model.sequence_logits(*self.vectors(model, batch))
        return logits

    def shown(self, example: Any) -> str:
        """The members of a set, without the patches of images."""
        p = self.processor
        images = {part.name for part in p.parts if part.kind == "image"}
        names = p.names(self.with_parts(example[0], [n for n in self.present(example[0]) if n not in images]))
        text = ", ".join([*names, *sorted(images)])
        return text if len(text) <= 60 else text[:57] + "..."

    def sample(self, model: Any, step: int) -> list[Figure]:
        """Some held-out sets and what the model says."""
        rows = []
        for example in self.encoded("validation", model.config.block_size)[:5]:
            p, best = self.answer(model, example).softmax(dim=-1).max(dim=-1)
            rows.append((self.shown(example), self.labels[int(best)], float(p), self.labels[example[1]]))
        columns = [Column("set"), Column("answer"), Column("probability", "share"), Column("label")]
        return [Table("Held-out sets", columns, rows)]

    def extra_scores(self, model: Any, split: str = "validation") -> PartScores | None:
        """The score without each part, and with each part alone."""
        names = [part.name for part in self.processor.parts]
        if not 1 < len(names) <= MOST_PARTS_SHOWN:
            return None
        examples = self.encoded(split, model.config.block_size)
        cases = {"all parts": names}
        cases |= {f"without {name}": [other for other in names if other != name] for name in names}
        cases |= {f"{name} alone": [name] for name in names}
        found = {}
        for case, kept in cases.items():
            held = [(members, y) for members, y in examples if set(kept) & set(self.present(members))]
            if held:
                found[case] = self.measure(model, [(self.with_parts(members, kept), y) for members, y in held])
        return PartScores(self.score_name, found)

    score_name: ClassVar[str] = "accuracy"

    def measure(self, model: Any, examples: Sequence[Any]) -> Metrics:
        """The scores on some examples."""
        batches = in_order(examples, self.collate, EVAL_ROWS, self.run.seed, by_chance=False)
        windows, accuracy = evaluate_rows(model, self.rows, batches)
        return windows.metrics(accuracy=accuracy)


class ClassifySets(Sets):
    """Cross-entropy over the classes of sets."""

    asks: ClassVar[str] = "class"
    command: ClassVar[str] = "classify"


class RegressSets(Regression, Sets):
    """Squared error of a number for each set."""

    placeholders: ClassVar[Mapping[str, Any] | None] = None
    score_name: ClassVar[str] = "rmse"

    def numbers(self, model: Any, batch: Batch) -> Tensor:
        found: Tensor = model.number(*self.vectors(model, batch))
        return found

    def shown(self, example: Any) -> str:
        return Sets.shown(self, example)

    def measure(self, model: Any, examples: Sequence[Any]) -> Metrics:
        return Metrics(error_metrics(super().measure(model, examples)["loss"]))


@dataclass(frozen=True)
class PartScores:
    """A score by what was given: all parts, all but one, one alone."""

    name: str
    cases: dict[str, Metrics]

    def to_dict(self) -> dict[str, Any]:
        return {"parts": {case: metrics.to_dict()[self.name] for case, metrics in self.cases.items()}}

    def lines(self) -> list[str]:
        """One line a case, with its 95 % interval."""
        percent = self.name == "accuracy"
        shown = []
        for case, metrics in self.cases.items():
            value, n, interval = metrics[self.name]
            number = f"{100 * value:6.2f} % ± {100 * interval:.2f}" if percent else f"{value:.4g} ± {interval:.3g}"
            shown.append(f"{case:<30} {number} ({n:,} records)")
        return shown

    def figures(self) -> list[Figure]:
        """The same as a table."""
        rows = [(case, m[self.name].value, m[self.name].interval) for case, m in self.cases.items()]
        kind = "share" if self.name == "accuracy" else "number"
        columns = [Column("given"), Column(self.name, kind), Column("± (95 %)", kind)]
        return [Table("What each part is worth", columns, [row for row in rows if math.isfinite(row[2])])]
