"""Examples as a task: sentence pairs, labelled texts, texts with gaps to fill."""

from __future__ import annotations

import hashlib
import inspect
from pathlib import Path
from typing import Any

import numpy as np

from glassformer.data.encoding import encode_examples, encode_labelled, encode_sources, label_names, tokenizer_from
from glassformer.data.example_batches import ExampleBatches, in_order
from glassformer.data.examples import Example, Examples, load_examples, spread
from glassformer.errors import DataError, UsageError, did_you_mean, plural
from glassformer.evaluation.examples import evaluate_rows
from glassformer.generation.fill_mask import sentinels_of
from glassformer.hub import load_source_tokenizer
from glassformer.hub.configuration import read_config
from glassformer.processors.tokenizers import Tokenizer, load_tokenizer
from glassformer.processors.tokenizers.special_tokens import (
    END,
    MASK,
    MASKED_SPECIALS,
    PAD,
    SENTENCE_SPECIALS,
    START,
    span_specials,
)
from glassformer.recipes import example_samples
from glassformer.recipes.choices import Choice
from glassformer.recipes.held_out import training_rows
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import sequence_length
from glassformer.tasks import (
    OBJECTIVES,
    MaskedTokens,
    Objective,
    SequenceClass,
    Spans,
    TargetSentence,
    TokenClass,
)
from glassformer.tasks.objective import of_class
from glassformer.training import World
from glassformer.training.diagnostics import activations_during
from glassformer.training.loop import Batches, Evaluated

EVAL_ROWS = 64  # examples that an evaluation puts through the model together
# by the objective's class, or the one that it descends from
SPECIALS = {
    TargetSentence: SENTENCE_SPECIALS,
    Spans: span_specials(),
    MaskedTokens: MASKED_SPECIALS,
    SequenceClass: MASKED_SPECIALS,  # so that it can start from an encoder that filled in masked tokens
    TokenClass: MASKED_SPECIALS,
}
COMMANDS = {TargetSentence: "translate", Spans: "fill", MaskedTokens: "fill", SequenceClass: "classify"}
SHORTEST = 8  # tokens of a plain text: what is shorter leaves nothing to guess a gap from


class ExampleTask:
    """Any objective on examples; see `Task` for what the methods promise."""

    def __init__(
        self,
        r: Recipe,
        examples: Examples,
        tokenizer: Tokenizer,
        source_tokenizer: Tokenizer | None = None,
        special: dict[str, int] | None = None,
        labels: tuple[str, ...] = (),
    ):
        """special: the ids of special tokens by their names in the model's configuration, where there is a model; left
        out, they are looked up in the tokenizer. labels: those that a model to be measured was trained with; left out,
        those of the training examples."""
        self.r, self.examples, self.special = r, examples, special or {}
        self.tokenizer, self.source_tokenizer = tokenizer, source_tokenizer
        self.kind = OBJECTIVES[r.task.kind]
        self.labels = _labels(self.kind.data, examples["train"], labels)
        self.key = _key(examples, tokenizer, source_tokenizer)
        self.command = of_class(COMMANDS, self.kind, "")
        self.n_answers = len(self.labels) or tokenizer.vocab_size
        self.n_train = len(examples["train"])
        self.longest = self._longest(examples["train"][:1000])
        self.notices: list[str] = []  # what was too long, in words
        self._encoded: dict[tuple[str, int], list[Any]] = {}

    def facts(self) -> dict[str, Any]:
        """Sizes and special tokens; those that the tokenizer lacks are left out."""
        t, s = self.tokenizer, self.source_tokenizer or self.tokenizer
        names = {"start_token": START, "end_token": END, "pad_token": PAD, "mask_token": MASK}
        facts: dict[str, Any] = {"vocab_size": t.vocab_size, "source_vocab_size": s.vocab_size}
        facts |= {name: t.special_tokens[text] for name, text in names.items() if text in t.special_tokens}
        if self.source_tokenizer is not None:
            facts["pad_token"] = 0  # nobody looks at it, but it must be in both vocabularies
        if sentinels := sentinels_of(t):
            facts["sentinels"] = sentinels
        facts |= self.special
        facts["special_tokens"] = sorted(t.special_tokens.values())
        if self.labels:
            facts["n_classes"] = len(self.labels)
        return facts

    def check(self, config: Any, length: int = 0) -> None:
        if config is None:
            return  # `evaluate` says which split is missing
        for split in ("train", "validation"):
            if not self.examples[split]:
                raise DataError(
                    f"{self.r.data.source}: no examples to {'learn from' if split == 'train' else 'measure on'}"
                )
        self.encoded("train", length)
        for split in ("validation", "test"):  # what a later evaluation would stumble over
            if self.examples[split]:
                self.encoded(split, config.block_size)

    def objective(self) -> Objective:
        wanted = inspect.signature(self.kind).parameters
        facts = self.facts()
        objective: Objective = self.kind(
            **{name: value for name, value in facts.items() if name in wanted}, **self.r.task.settings
        )
        return objective

    def encoded(self, split: str, block_size: int) -> list[Any]:
        """The examples of a split as the objective's `collate` takes them, for a model of that window."""
        key = split, block_size
        if key not in self._encoded:
            try:
                self._encoded[key] = self._encode(split, block_size)
            except DataError as error:
                raise DataError(f"{self.r.data.source}, {split} examples: {error}") from None
        return self._encoded[key]

    def batches(self, config: Any, world: World) -> Batches:
        t = self.r.training
        assert isinstance(t.batch_size, int)
        objective = self.objective()
        return ExampleBatches(
            self.encoded("train", sequence_length(config, t)),
            objective.collate,
            by_chance=objective.by_chance,
            batch_size=t.batch_size // world.size,
            seed=t.seed,
            rank=world.rank,
            world_size=world.size,
            pad_token=self.facts().get("pad_token", 0),
        )

    def evaluate(self, model: Any, *, whole: bool = True, split: str = "validation") -> Evaluated:
        if split not in self.examples or not self.examples[split]:
            raise UsageError(f"{self.r.data.source} has no {split} split; {did_you_mean(split, self.examples)}")
        examples = self.encoded(split, model.config.block_size)
        t, objective = self.r.training, self.objective()
        few = t.eval_batches * int(t.batch_size or 1)  # of the validation split; 0 is all of it
        if not whole and split == "train":
            held_out = few or len(self.encoded("validation", model.config.block_size))
            examples = spread(examples, min(held_out, training_rows(t)))
        elif not whole and few:
            examples = examples[:few]
        pad = self.facts().get("pad_token", 0)
        order = in_order(examples, objective.collate, EVAL_ROWS, t.seed, by_chance=objective.by_chance, pad_token=pad)
        windows, accuracy = evaluate_rows(model, objective, order)
        return Evaluated(windows, accuracy=accuracy)

    def sample(self, model: Any, step: int) -> str:
        return example_samples.sample(self, model)

    def activations(self, model: Any, pattern: str) -> dict[str, dict[str, float]]:
        objective = self.objective()
        batch = objective.collate(self.encoded("validation", model.config.block_size)[:8], np.random.default_rng(0))
        device = next(model.parameters()).device
        return activations_during(
            model, lambda: objective.rows(model, tuple(part.to(device) for part in batch)), pattern
        )

    def warnings(self, config: Any) -> list[str]:
        n, batch_size = self.n_train, self.r.training.batch_size
        few = isinstance(batch_size, int) and batch_size > n
        return [*self.notices, *([f"a step reads {batch_size} examples and there are {n}"] if few else [])]

    def derived(self) -> dict[str, Any]:
        return {"examples": {split: len(rows) for split, rows in self.examples.items()}, "labels": list(self.labels)}

    def _longest(self, some: list[Example]) -> int:
        """Tokens of a source or target, which 19 of 20 do not exceed."""
        read = (self.source_tokenizer or self.tokenizer).encode_documents([example.source for example in some])
        paired = self.kind.data == "pairs"
        said = self.tokenizer.encode_documents([example.target for example in some]) if paired else []
        return int(np.quantile([len(ids) for ids in [*read, *said]], 0.95)) if some else 0

    def _encode(self, split: str, T: int) -> list[Any]:
        """Texts longer than the model's window lose their end, which is told; plain texts are cut into pieces.

        Raises:
            DataError: an example lacks its target, has a label that is not among `labels`, or is nothing in this
                vocabulary; or none fits.
        """
        data, examples = self.kind.data, self.examples[split]
        reader = self.source_tokenizer or self.tokenizer
        if data == "pairs":
            return self._encode_pairs(split, reader, T)
        if data == "tagged":
            return self._encode_tagged(split, reader, T)
        if data == "labelled":
            encoded = encode_labelled(examples, reader, self.labels, max_source=T)
            self._notice(encoded.cut_sources, "text", split, f"cut to {T} tokens")
            return encoded.rows
        rows = [ids for ids in encode_sources(examples, reader, max_source=T, pieces=True).rows if len(ids) >= SHORTEST]
        if not rows:
            raise DataError(f"no text has {SHORTEST} tokens, which a gap needs around it; give longer texts")
        return rows

    def _notice(self, count: int, noun: str, split: str, what: str) -> None:
        if count:
            self.notices.append(f"{plural(count, noun)} of {len(self.examples[split]):,} ({split}) {what}")

    def _encode_tagged(self, split: str, reader: Tokenizer, T: int) -> list[Any]:
        """A tag for each token: the target names them, with spaces between."""
        number, rows, cut = {tag: i for i, tag in enumerate(self.labels)}, [], 0
        for example in self.examples[split]:
            ids, tags = reader.encode(example.source), example.target.split()
            if len(ids) != len(tags):
                raise DataError(
                    f"{example.source[:40]!r} has {plural(len(ids), 'token')} and {plural(len(tags), 'tag')}; "
                    "give one tag a token, with spaces between"
                )
            if unknown := set(tags) - number.keys():
                raise DataError(
                    f"the tag {min(unknown)!r} is not one that was learned; {did_you_mean(min(unknown), number)}"
                )
            rows.append((ids[:T], [number[tag] for tag in tags[:T]]))
            cut += len(ids) > T
        self._notice(cut, "text", split, f"cut to {T} tokens")
        return rows

    def _encode_pairs(self, split: str, reader: Tokenizer, T: int) -> list[Any]:
        """A training pair that is longer than the window is left out, for half a sentence is no translation of a whole
        one; a held-out one is cut."""
        examples, end = self.examples[split], reader.special_tokens.get(END)
        if (bare := next((e.source for e in examples if not e.target), None)) is not None:
            raise DataError(f"{bare[:40]!r} has no target; give each source one, or set task.kind=next_token")
        room = T - (end is not None)
        rows = encode_examples(examples, reader, self.tokenizer, max_source=room + 1, max_target=T).rows
        fitting = [(s, t) for s, t in rows if len(s) <= room and len(t) < T]
        long = len(rows) - len(fitting)
        if split != "train":
            self._notice(long, "pair", split, f"longer than {T} tokens cut")
            fitting = [(s[:room], t[: T - 1]) for s, t in rows]
        else:
            self._notice(long, "pair", split, f"longer than {T} tokens left out")
        if not fitting:
            raise DataError(f"every pair is longer than {T} tokens; try a larger model.block_size")
        return [(s if end is None else np.append(s, end).astype(s.dtype), t) for s, t in fitting]


def _special_of(folder: Path) -> dict[str, int]:
    """The special tokens of a model that writes answers; a published one calls them as it likes."""
    if not (folder / "config.json").is_file():  # the tokenizers of a sharded checkpoint
        return {}
    _, config = read_config(folder)
    names = ("start_token", "end_token", "pad_token")
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _labels(data: str, examples: list[Example], known: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the classes: those `known`, else the ones that the training examples have; () without classes."""
    if data in ("labelled", "tagged") and known:
        return known
    if data == "labelled":
        return tuple(label_names(examples))
    tags = [Example("", tag) for example in examples for tag in example.target.split()] if data == "tagged" else []
    return tuple(label_names(tags)) if tags else ()


def _key(examples: Examples, *tokenizers: Tokenizer | None) -> str:
    """Changes when an example or the vocabulary does."""
    digest = hashlib.sha256()
    for split in ("train", "validation"):
        for example in examples[split]:
            digest.update("\0".join((split, *example, "")).encode("utf-8", "surrogatepass"))
    for tokenizer in tokenizers:
        digest.update(str(tokenizer and tokenizer.hash).encode())
    return digest.hexdigest()[:16]


def open_examples(
    r: Recipe, folder: Path | None = None, labels: tuple[str, ...] = ()
) -> tuple[ExampleTask, list[Choice]]:
    """The examples of a recipe and their tokenizers: those in `folder`, else the ones that the recipe names, made from
    the training split. labels: as `ExampleTask`."""
    examples = load_examples(r.data.source)
    if r.data.max_examples:
        examples = {**examples, "train": spread(examples["train"], r.data.max_examples)}
    t = r.tokenizer
    if folder is not None:
        tokenizer = load_tokenizer(folder)
        reads: Tokenizer | None = load_source_tokenizer(folder)
        source = None if reads == tokenizer else reads
        return ExampleTask(r, examples, tokenizer, source, _special_of(folder), labels), []
    objective = OBJECTIVES[r.task.kind]
    specials = of_class(SPECIALS, objective, SENTENCE_SPECIALS if objective.asks == "target" else MASKED_SPECIALS)
    if t.path is not None:
        return ExampleTask(r, examples, load_tokenizer(t.path)), []
    choices = []
    kind = t.kind
    if kind is None:
        kind = "words" if objective.data == "tagged" else "bpe"
        why = "a tag for each word" if kind == "words" else "subwords of sources and targets together"
        choices.append(Choice("tokenizer.kind", kind, why))
    options: dict[str, Any] = {"vocab_size": t.vocab_size, "specials": specials}
    if t.source_kind is None:
        side = "both" if objective.data == "pairs" else "source"
        return ExampleTask(r, examples, tokenizer_from(examples["train"], kind, side=side, **options)), choices
    reader = tokenizer_from(examples["train"], t.source_kind, side="source")
    writer = tokenizer_from(examples["train"], kind, side="target", **options)
    return ExampleTask(r, examples, writer, reader), choices
