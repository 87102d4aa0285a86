"""Tasks on examples: a source, and what should come of it.

    Example("Press Tab.", "Appuyez sur Tab.")   ([301, 77, 9], [512, 48, 77, 9])    translate
    Example("A fine film.", "positive")         ([20, 84, 96, 9], 1)                classify
    Example("A fine film.")                     [20, 84, 96, 9]                     masked_tokens, spans

Ids are arrays of uint16, or of uint32 for a vocabulary of more than 65,536 entries. Start and end tokens are added by
`collate`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from glassformer.data.encoding import label_names, tokenizer_from
from glassformer.data.example_batches import ExampleBatches, in_order
from glassformer.data.examples import Example, load_examples, spread
from glassformer.errors import DataError, UsageError, did_you_mean, plural
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Figure, Note
from glassformer.hub import load_source_tokenizer
from glassformer.hub.configuration import read_config
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.special_tokens import END, MASK, MASKED_SPECIALS, PAD, START
from glassformer.tasks.base import Batch, Batches, Loss, Opening, Task
from glassformer.tasks.losses import number_of, row_losses, summed_cross_entropy
from glassformer.tasks.settings import Choice, DataSettings, TokenizerSettings

EVAL_ROWS = 64  # examples that an evaluation puts through the model together
SAMPLES = 3  # examples of a sample
LONGEST_SAMPLE = 200  # characters of each that are shown


@dataclass(kw_only=True)
class SplitSource:
    """Examples of any kind by split, and what was too long in them (`notices`)."""

    name: str
    examples: Mapping[str, Sequence[Any]]
    labels: tuple[str, ...] = ()
    notices: list[str] = field(default_factory=list)
    encoded: dict[tuple[str, int], list[Any]] = field(default_factory=dict)

    @property
    def n_train(self) -> int:
        return len(self.examples.get("train", ()))

    def digest(self, parts: Callable[[Any], Iterable[str]], end: str = "", begin: str = "") -> str:
        """Changes when the parts of a training or validation example do."""
        digest = hashlib.sha256(begin.encode())
        for split in ("train", "validation"):
            for example in self.examples.get(split, ()):
                digest.update("\0".join((split, *parts(example), "")).encode("utf-8", "surrogatepass"))
        digest.update(end.encode())
        return digest.hexdigest()[:16]

    def notice(self, count: int, noun: str, split: str, what: str) -> None:
        """Note how many examples of a split were changed, for `Task.warnings`."""
        if count:
            self.notices.append(f"{plural(count, noun)} of {len(self.examples[split]):,} ({split}) {what}")


@dataclass(kw_only=True)
class ExampleSource(SplitSource):
    """Texts, perhaps with targets, and their tokenizers.

    special: the ids of special tokens by their names in the configuration of an existing model; without one, they are
    looked up in the tokenizer.
    """

    tokenizer: Tokenizer
    source_tokenizer: Tokenizer | None = None
    special: dict[str, int] = field(default_factory=dict)

    @property
    def reader(self) -> Tokenizer:
        """The tokenizer of sources."""
        return self.source_tokenizer or self.tokenizer

    @cached_property
    def key(self) -> str:
        """Changes when an example or a vocabulary does."""
        hashes = (str(tokenizer and tokenizer.hash) for tokenizer in (self.tokenizer, self.source_tokenizer))
        return self.digest(tuple, end="".join(hashes))

    def fields(self) -> dict[str, Any]:
        """Sizes and special tokens by their names in a configuration; those that the tokenizer lacks are left out."""
        t = self.tokenizer
        names = {"start_token": START, "end_token": END, "pad_token": PAD, "mask_token": MASK}
        fields: dict[str, Any] = {"vocab_size": t.vocab_size, "source_vocab_size": self.reader.vocab_size}
        fields |= {name: t.special_tokens[text] for name, text in names.items() if text in t.special_tokens}
        if self.source_tokenizer is not None:
            fields["pad_token"] = 0  # never read, but it must be in both vocabularies
        fields |= self.special
        if self.labels:
            fields["n_classes"] = len(self.labels)
        return fields


class ExampleTask(Task):
    """A task that learns from examples; see `Task`. A subclass defines how examples are encoded and collated.

    Args:
        pad_token: what fills up shorter rows; it is never read.
    """

    data_keys: ClassVar[tuple[str, ...]] = ("max_examples",)
    by_chance: ClassVar[bool] = False  # whether `collate` draws random numbers
    specials: ClassVar[tuple[str, ...]] = MASKED_SPECIALS  # tokens that a new tokenizer gets
    default_kind: ClassVar[tuple[str, str]] = ("bpe", "subwords of sources and targets together")  # and why
    tokenizer_side: ClassVar[str] = "source"  # what a new tokenizer is learned from: both or source
    source: ExampleSource

    def __init__(self, *, pad_token: int = 0, **settings: Any):
        super().__init__(**settings)
        self.pad_token = pad_token

    @classmethod
    def read(cls, opening: Opening, choices: list[Choice]) -> Any:
        data, folder = opening.data, opening.folder
        examples = load_examples(data.source)
        if data.max_examples:
            examples = {**examples, "train": spread(examples["train"], data.max_examples)}
        special: dict[str, int] = {}
        if folder is not None:
            writer, reader = load_tokenizer(folder), load_source_tokenizer(folder)
            reader = None if reader == writer else reader
            special = _special_of(folder)
        else:
            writer, reader = cls._tokenizers(examples["train"], opening.tokenizer, choices)
        labels = cls.labels_of(examples["train"], opening.labels)
        return ExampleSource(
            name=data.source,
            examples=examples,
            tokenizer=writer,
            source_tokenizer=reader,
            labels=labels,
            special=special,
        )

    @classmethod
    def arguments(cls, source: ExampleSource) -> dict[str, Any]:
        return {"pad_token": source.fields().get("pad_token", 0)}

    @classmethod
    def labels_of(cls, examples: Sequence[Example], known: tuple[str, ...]) -> tuple[str, ...]:
        """The names of the classes: those `known`, else those of the training examples; () without classes."""
        return ()

    @classmethod
    def _tokenizers(
        cls, examples: Sequence[Example], settings: TokenizerSettings, choices: list[Choice]
    ) -> tuple[Tokenizer, Tokenizer | None]:
        """(of targets, of sources where it is another one): the one that is named, or learned from the examples."""
        if settings.path is not None:
            return load_tokenizer(settings.path), None
        kind, why = cls.default_kind
        if settings.kind is None:
            choices.append(Choice("tokenizer.kind", kind, why))
        options: dict[str, Any] = {"vocab_size": settings.vocab_size, "specials": cls.specials}
        kind = settings.kind or kind
        if settings.source_kind is None:
            return tokenizer_from(examples, kind, side=cls.tokenizer_side, **options), None
        reader = tokenizer_from(examples, settings.source_kind, side="source")
        return tokenizer_from(examples, kind, side="target", **options), reader

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        return (example.source for example in load_examples(data.source, quiet=True)["train"])

    def model_fields(self) -> dict[str, Any]:
        return self.source.fields()

    @property
    def longest(self) -> int:
        """Tokens of a text, which 19 of 20 of the first training examples do not exceed."""
        first = self.source.examples["train"][:1000]
        texts = [*self.source.reader.encode_documents([example.source for example in first])]
        if self.tokenizer_side == "both":
            texts += self.tokenizer.encode_documents([example.target for example in first])
        return int(np.quantile([len(ids) for ids in texts], 0.95)) if texts else 0

    def facts(self) -> dict[str, Any]:
        sizes = {split: len(rows) for split, rows in self.source.examples.items()}
        return {"examples": sizes, "labels": list(self.labels)}

    def warnings(self) -> list[str]:
        n, batch_size = self.source.n_train, self.run.batch_size
        few = [f"a step reads {batch_size} examples and there are {n}"] if batch_size > n else []
        return [*self.source.notices, *few]

    def check(self, config: Any) -> None:
        if config is None:
            return  # `evaluate` names the missing split
        for split, purpose in (("train", "learn from"), ("validation", "measure on")):
            if not self.source.examples[split]:
                raise DataError(f"{self.source.name}: no examples to {purpose}")
        self.encoded("train", self.run.sequence_length)
        for split in ("validation", "test"):  # what a later evaluation would refuse
            if self.source.examples[split]:
                self.encoded(split, config.block_size)

    def encoded(self, split: str, T: int) -> list[Any]:
        """The examples of a split as `collate` takes them, for windows of T tokens."""
        cache = self.source.encoded
        if (split, T) not in cache:
            try:
                cache[split, T] = self.encode(split, T)
            except DataError as error:
                raise DataError(f"{self.source.name}, {split} examples: {error}") from None
        return cache[split, T]

    def encode(self, split: str, T: int) -> list[Any]:
        """Texts longer than T tokens lose their end, which `notice` notes.

        Raises:
            DataError: an example lacks its target, or is empty in this vocabulary; or none fits.
        """
        raise NotImplementedError

    def encode_sources(self, split: str, T: int) -> list[np.ndarray]:
        """The sources of a split, cut to T tokens."""
        examples = self.source.examples[split]
        whole = encode_texts(examples, self.source.reader)
        self.source.notice(sum(len(ids) > T for ids in whole), "text", split, f"cut to {T} tokens")
        return [ids[:T] for ids in whole]

    def batches(self, split: str, rank: int = 0, world_size: int = 1) -> Batches:
        return ExampleBatches(
            self.encoded(split, self.run.sequence_length),
            self.collate,
            by_chance=self.by_chance,
            batch_size=self.run.batch_size // world_size,
            seed=self.run.seed,
            rank=rank,
            world_size=world_size,
            pad_token=self.pad_token,
        )

    def evaluate(self, model: Any, split: str = "validation", *, whole: bool = True) -> Metrics:
        all_examples, T = self.source.examples, model.config.block_size
        if not all_examples.get(split):
            raise UsageError(f"{self.source.name} has no {split} split; {did_you_mean(split, all_examples)}")
        examples, few = self.encoded(split, T), self.run.eval_batches * self.run.batch_size
        if not whole and split == "train":
            held_out = few or len(self.encoded("validation", T))
            examples = spread(examples, min(held_out, self.run.train_eval_rows))
        elif not whole and few:
            examples = examples[:few]
        batches = in_order(
            examples, self.collate, EVAL_ROWS, self.run.seed, by_chance=self.by_chance, pad_token=self.pad_token
        )
        windows, accuracy = evaluate_rows(model, self.rows, batches)
        return windows.metrics(accuracy=accuracy)

    def logits(self, model: Any, batch: Batch) -> Tensor:
        """The model's answers at every target."""
        raise NotImplementedError

    def loss(self, model: Any, batch: Batch) -> Loss:
        """The loss of every target."""
        return Loss(summed_cross_entropy(self.logits(model, batch), batch[-1]), number_of(batch[-1]))

    def rows(self, model: Any, batch: Batch) -> RowLosses:
        """The loss of each example, and how many of its targets were right."""
        return row_losses(self.logits(model, batch), batch[-1])

    def example_batch(self, model: Any) -> Batch:
        return self.collate(self.encoded("validation", model.config.block_size)[:8], np.random.default_rng(0))

    def sample(self, model: Any, step: int) -> list[Figure]:
        examples = spread(self.encoded("validation", model.config.block_size), SAMPLES)
        texts = [self.sample_text(model, example, number) for number, example in enumerate(examples)]
        return [Note("\n\n".join(texts))] if any(texts) else []

    def sample_text(self, model: Any, example: Any, number: int) -> str:
        """What the model makes of one encoded example; "": nothing to show."""
        return ""

    @torch.inference_mode()
    def answer(self, model: Any, example: Any) -> Tensor:
        """The logits for one encoded example, without the dimension of the batch, on the CPU."""
        device = next(model.parameters()).device
        batch = self.collate([example], np.random.default_rng(0))
        return self.logits(model, tuple(part.to(device) for part in batch))[0].cpu()

    def text_with_specials(self, ids: Iterable[int]) -> str:
        """Text with its special tokens, which `decode` leaves out."""
        special = {i: text for text, i in self.tokenizer.special_tokens.items()}
        text, plain = "", list[int]()
        for i in [*ids, -1]:
            if i in special or i < 0:
                text += self.tokenizer.decode(plain) + special.get(i, "")
                plain = []
            else:
                plain.append(i)
        return shortened(text)


def encode_texts(examples: Sequence[Example], tokenizer: Tokenizer) -> list[np.ndarray]:
    """The ids of the sources, in order.

    Raises:
        DataError: a source is empty in this vocabulary.
    """
    rows = [*tokenizer.encode_documents([example.source for example in examples])]
    if (place := next((i for i, ids in enumerate(rows) if not len(ids)), None)) is not None:
        raise DataError(f"example {place}, {examples[place].source[:40]!r}, is empty in this vocabulary; leave it out")
    return rows


def text_pieces(task: ExampleTask, split: str, T: int, shortest: int = 8) -> list[np.ndarray]:
    """All of the texts, in pieces of at most T tokens and at least `shortest`: a gap needs something around it.

    Raises:
        DataError: no text is long enough.
    """
    whole = encode_texts(task.source.examples[split], task.source.reader)
    pieces = [ids[start : start + T] for ids in whole for start in range(0, len(ids), T)]
    pieces = [ids for ids in pieces if len(ids) >= shortest]
    if not pieces:
        raise DataError(f"no text has {shortest} tokens, which a gap needs around it; give longer texts")
    return pieces


def check_targets(examples: Iterable[Example], what: str) -> None:
    """Raise a `DataError` for an example without a target."""
    bare = next((example.source for example in examples if not example.target), None)
    if bare is not None:
        raise DataError(f"{bare[:40]!r} has no {what}; give each source one")


def numbers_of(labels: Sequence[str], known: Sequence[str]) -> list[int]:
    """The places of labels among those that are learned.

    Raises:
        DataError: one is not among them.
    """
    number = {label: i for i, label in enumerate(known)}
    if unknown := next((label for label in labels if label not in number), None):
        raise DataError(f"the label {unknown!r} is not one that was learned; {did_you_mean(unknown, known)}")
    return [number[label] for label in labels]


def classes_of(targets: Iterable[str], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes: those `known`, else the different targets, sorted.

    Raises:
        DataError: fewer than two.
    """
    return known or tuple(label_names(Example("", target) for target in targets))


def check_classes(labels: Iterable[int], n_classes: int) -> None:
    """Raise a `DataError` for a label that is no class."""
    for label in labels:
        if not 0 <= label < n_classes:
            raise DataError(
                f"label {label} is not one of the {n_classes} classes 0 ... {n_classes - 1}; check n_classes"
            )


def shortened(text: str) -> str:
    """A text in one line of at most `LONGEST_SAMPLE` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SAMPLE else line[: LONGEST_SAMPLE - 3] + "..."


def _special_of(folder: Path) -> dict[str, int]:
    """The special tokens of an existing model that writes answers; a published one may call them otherwise."""
    if not (folder / "config.json").is_file():  # the tokenizers of a sharded checkpoint
        return {}
    _, config = read_config(folder)
    names = ("start_token", "end_token", "pad_token")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}
