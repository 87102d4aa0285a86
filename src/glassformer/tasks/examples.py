"""Tasks on examples: a source, and what should come of it.

    Example("Press Tab.", "Appuyez sur Tab.")   ([301, 77, 9], [512, 48, 77, 9])    translate
    Example("A fine film.", "positive")         ([20, 84, 96, 9], 1)                classify
    Example("A fine film.")                     [20, 84, 96, 9]                     masked_tokens, spans

Ids are arrays of uint16, or of uint32 for a vocabulary of more than 65,536 entries. Start and end tokens are added by
`collate`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from glassformer.data.encoding import tokenizer_from
from glassformer.data.example_batches import ExampleBatches, in_order
from glassformer.data.examples import Example, load_examples, spread
from glassformer.errors import DataError, UsageError, did_you_mean
from glassformer.evaluation.estimate import Metrics
from glassformer.evaluation.rows import RowLosses, evaluate_rows
from glassformer.figures.primitives import Figure, Note
from glassformer.hub import load_source_tokenizer
from glassformer.hub.configuration import read_config
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.special_tokens import MASKED_SPECIALS
from glassformer.tasks.base import Batch, Batches, Loss, Opening, Task
from glassformer.tasks.losses import number_of, row_losses, summed_cross_entropy
from glassformer.tasks.settings import Choice, DataSettings, TokenizerSettings
from glassformer.tasks.sources import ExampleSource

EVAL_ROWS = 64  # examples that an evaluation puts through the model together
SAMPLES = 3  # examples of a sample
LONGEST_SAMPLE = 200  # characters of each that are shown


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
            special = special_of(folder)
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
        few = [f"a step reads {batch_size} examples and there are {n}"] if batch_size > n and not self.on_policy else []
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
            examples = self.train_eval_examples(examples, T)
        elif not whole and few:
            examples = examples[:few]
        batches = in_order(
            examples, self.collate, EVAL_ROWS, self.run.seed, by_chance=self.by_chance, pad_token=self.pad_token
        )
        windows, accuracy = evaluate_rows(model, self.rows, batches)
        return windows.metrics(accuracy=accuracy)

    def train_eval_examples(self, rows: Sequence[Any], T: int) -> list[Any]:
        """Those of the training rows that an evaluation on the way reads: at most as many as of the validation split,
        which has windows of T tokens."""
        held_out = self.run.eval_batches * self.run.batch_size or len(self.encoded("validation", T))
        return spread(rows, min(held_out, self.run.train_eval_rows))

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


class NonTextTask(ExampleTask):
    """A task on examples that are no text, such as images; its source has their `processor`. A subclass says in `holds`
    what they are."""

    holds: ClassVar[str]
    source: Any

    @classmethod
    def arguments(cls, source: Any) -> dict[str, Any]:
        return {}

    @classmethod
    def texts(cls, data: DataSettings) -> Iterable[str]:
        raise DataError(f"{data.source} holds {cls.holds} and no text")

    @property
    def processor(self) -> Any:
        return self.source.processor

    @property
    def source_tokenizer(self) -> None:
        return None

    @property
    def longest(self) -> int:
        return 0


def shortened(text: str) -> str:
    """A text in one line of at most `LONGEST_SAMPLE` characters."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST_SAMPLE else line[: LONGEST_SAMPLE - 3] + "..."


def special_of(folder: Path) -> dict[str, int]:
    """The special tokens of an existing model that writes answers; a published one may call them otherwise."""
    if not (folder / "config.json").is_file():  # the tokenizers of a sharded checkpoint
        return {}
    _, config = read_config(folder)
    names = ("start_token", "end_token", "pad_token")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}
