"""The model that a run starts from: its configuration, tokenizer and weights, and what a recipe changes of them.

Everything comes from the model. What a recipe sets beside it and what differs is shown with both values where that was
asked for: on the command line, or in the place that names `training.start_from`. A difference that was not asked for is
refused when it would change what the weights compute: such a run would learn something else than it seems to.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.hub import load_labels, load_model, model_folder_of
from glassformer.hub.adapters import heads
from glassformer.hub.families.family import fields_without_meaning
from glassformer.hub.folder import load_processors
from glassformer.hub.state_dict import tied_names
from glassformer.layers import LearnedPositions
from glassformer.models import (
    FAMILIES,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    kind_of,
    kinds_that_answer,
    registered,
)
from glassformer.models.building import CLASSIFIERS
from glassformer.models.counts import model_on_meta
from glassformer.models.image_size import interpolated, sized_config
from glassformer.processors.tokenizers import Tokenizer
from glassformer.recipes.schema import Recipe
from glassformer.recipes.shape import facts_for, named_size
from glassformer.tasks import TASKS, Choice, Task

NAMED = 6  # fresh tensors that are named


@dataclass(frozen=True)
class Start:
    """A model to start from.

    Attributes:
        name: how recipe.toml keeps it: the name of a pulled model, or an absolute path, as a run may be resumed from
            another folder.
        folder: its model folder.
    """

    name: str
    folder: Path

    @classmethod
    def open(cls, asked: str) -> Start:
        """The model of a run, of a model folder, or of the name of one that was pulled.

        Raises:
            ModelFolderError: there is none.
        """
        folder = model_folder_of(asked)
        return cls(str(Path(asked).resolve()) if Path(asked).exists() else asked, folder)

    @cached_property
    def model(self) -> Any:
        """The model itself, in eval mode."""
        return load_model(self.folder)

    @cached_property
    def processors(self) -> tuple[Any, Any]:
        """Of what it writes and of what it reads; mostly the same."""
        return load_processors(self.folder, self.model.config)

    def configuration(self, r: Recipe, facts: dict[str, Any]) -> tuple[Any, list[Choice]]:
        """The configuration of the run: the model's own, with what was asked for and what the data decide; and a line
        for each change.

        Args:
            facts: what the data decide (`Task.model_fields`), without what an inherited tokenizer decides.

        Raises:
            UsageError: a change that was not asked for, or one that does not leave the blocks their weights.
        """
        theirs, kind = self.model.config, self._kind_for(r)
        changes = {key: value for key, value in self._wanted(r).items() if value != current(theirs, key)}
        free = self._free(changes) | self._asked(r)
        if unasked := {key: value for key, value in changes.items() if key not in free}:
            raise UsageError(
                f"the recipe sets {self._both(unasked)}, with which the weights of {self.name} compute something else; "
                "train without the recipe (--data TEXT training.start_from=MODEL), or ask for it on the command line"
            )
        decided = facts_for(r, kind, facts)
        if isinstance(theirs, EncoderConfig):
            decided.setdefault("n_classes", 0)
            if (size := decided.get("image_size", theirs.image_size)) != theirs.image_size:
                theirs = sized_config(theirs, size)
        if kind != kind_of(theirs):  # another head
            fields, known = theirs.model_dump(), registered(kind)[0].model_fields
            theirs = registered(kind)[0].make(**{**{k: v for k, v in fields.items() if k in known}, **decided})
        config = changed(theirs, {**changes, **decided})
        self._check_blocks(config, changes)
        return config, [
            Choice(f"model.{key}", v, f"{current(theirs, key)} in {self.name}") for key, v in changes.items()
        ]

    def _kind_for(self, r: Recipe) -> str:
        kind, asked = kind_of(self.model.config), r.model.kind
        able = kinds_that_answer(TASKS[r.task.kind].asks)
        if kind not in able and CLASSIFIERS.get(kind) in able:
            kind = CLASSIFIERS[kind]
        if asked not in (None, kind):
            raise UsageError(f"model.kind={asked}, and {self.name} is a model of kind {kind}; leave it out")
        if kind not in able:
            fitting = [name for name, task in TASKS.items() if kind in kinds_that_answer(task.asks)]
            way = f"use task.kind={' or '.join(fitting)}" if fitting else "it is counted and not trained"
            raise UsageError(f"{self.name} is a model of kind {kind} and cannot do task.kind={r.task.kind}; {way}")
        return kind

    def _wanted(self, r: Recipe) -> dict[str, Any]:
        """The fields that the recipe sets, sizes and families written out."""
        size = {} if r.model.size is None else named_size(r.model.size)
        fields = {**size, **r.model.fields}
        fields.pop("vocab_size", None)  # a size's; the tokenizer decides
        family = fields.pop("family", None)
        preset = {} if family is None or family == current(self.model.config, "family") else FAMILIES[family]
        return {**preset, **fields}

    def _asked(self, r: Recipe) -> set[str]:
        """The fields that were asked for by name, or by a size or a family."""
        asked = {key.removeprefix("model.") for key in r.asked if key.startswith("model.")}
        if "size" in asked and r.model.size is not None:
            asked |= named_size(r.model.size).keys()
        return asked | (FAMILIES[str(r.model.get("family"))].keys() if "family" in asked else set())

    def _free(self, changes: dict[str, Any]) -> set[str]:
        """Fields that may differ silently, since the weights compute the same with them."""
        c = self.model.config
        free = {"balance_weight"}
        if isinstance(c, ModelConfig):
            free |= fields_without_meaning(c)
            if c.positions != "learned" or changes.get("block_size", 0) < c.block_size:
                free.add("block_size")
        if isinstance(c, EncoderConfig) and not c.n_classes:
            free |= {"pooling", "pooler"}
        if isinstance(c, EncoderConfig) and c.token_head == "none":
            free.add("token_transform")
        return free

    def _check_blocks(self, config: Any, changes: dict[str, Any]) -> None:
        """Raise for a change with which a tensor of the blocks has another shape: a half-fresh block is none."""
        theirs = shapes(self.model.config)
        for name, shape in shapes(config).items():
            if "blocks" in name.split(".") and name in theirs and theirs[name] != shape:
                raise UsageError(
                    f"{self._both(changes)}: {name} would be {shape} and is {theirs[name]} in {self.name}, so its "
                    "weights cannot be kept; leave that out, or leave out training.start_from"
                )

    def _both(self, changes: dict[str, Any]) -> str:
        """Changes with both values."""
        return ", ".join(f"model.{key}={v} ({current(self.model.config, key)} there)" for key, v in changes.items())

    def tokenizer_choices(self, r: Recipe, task: Task) -> list[Choice]:
        """A line about the tokenizer of the run, if it has one.

        Raises:
            UsageError: another tokenizer than the model's, or a size of its vocabulary, that was not asked for.
        """
        if not isinstance(task.processor, Tokenizer):
            return []
        own, size = self.processors[0], r.tokenizer.vocab_size
        if self.shares_processors(task):
            if size not in (None, own.vocab_size) and "tokenizer.vocab_size" in r.asked:
                raise UsageError(
                    f"tokenizer.vocab_size={size}, and the tokenizer of {self.name} has {own.vocab_size}; leave it "
                    "out, or set tokenizer.kind for a tokenizer of its own"
                )
            return [Choice("tokenizer", f"that of {self.name}", f"{own.vocab_size:,} tokens")]
        kind = r.tokenizer.kind or r.tokenizer.path
        if not {"tokenizer.kind", "tokenizer.path", "tokenizer.source_kind"} & r.asked:
            raise UsageError(
                f"the recipe sets the tokenizer {kind}, whose tokens {self.name} does not know; train without the "
                f"recipe, or set tokenizer.kind={kind} on the command line"
            )
        return [Choice("tokenizer", kind, f"another than that of {self.name}: its vectors are learned from nothing")]

    def shares_processors(self, task: Task) -> bool:
        """Whether the task has the model's own processors, so that ids mean the same."""
        return self.processors == (task.processor, task.source_tokenizer or task.processor)

    def facts(self, task: Task) -> dict[str, Any]:
        """Of what the data decide, what the model does not: an inherited tokenizer belongs to the model, whose tables
        may have more rows than it has tokens."""
        facts = task.model_fields()
        if not self.shares_processors(task):
            return facts
        return {key: value for key, value in facts.items() if key == "n_classes"}

    def begin(self, model: nn.Module, task: Task, *, lora: bool = False) -> Choice:
        """Give a fresh model this one's weights, as far as names and shapes agree and tokens and labels mean the same.

        Raises:
            UsageError: nothing agrees, or a fresh tensor that an adapter cannot teach.
        """
        theirs, ours, config = self.model.state_dict(), model.state_dict(), cast(Any, model.config)
        shared = self.shares_processors(task)
        if shared and type(model) is type(self.model):  # which name tokens; another head has no use for them
            model.generation_settings = self.model.generation_settings
        other = set() if shared else tensors_of(self.model.config, "vocab_size")
        if getattr(self.model.config, "n_classes", 0) and load_labels(self.folder) != task.labels:
            other |= tensors_of(self.model.config, "n_classes")
        tables = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, LearnedPositions)}
        taken: dict[str, Tensor] = {}
        for name in ours.keys() & theirs.keys() - other - tied_names(model).keys():
            if ours[name].shape == theirs[name].shape:
                taken[name] = theirs[name]
            elif name in tables and self.model.reads == "patches":  # where the patches lie in the image
                taken[name] = interpolated(theirs[name], self.model.config, config)
            elif name in tables:  # as many places as both have
                rows = min(len(ours[name]), len(theirs[name]))
                taken[name] = torch.cat([theirs[name][:rows], ours[name][rows:]])
        if not taken:
            raise UsageError(f"training.start_from={self.name}: none of its tensors has a place in this model")
        model.load_state_dict(taken, strict=False)
        fresh = sorted(ours.keys() - taken.keys() - tied_names(model).keys())
        if lora and (blank := [name for name in fresh if name not in heads(model)]):
            raise UsageError(
                f"training.lora_rank keeps the weights of {self.name}, and {blank[0]} is not among them, so it would "
                "stay random; leave training.lora_rank out"
            )
        left = sorted(theirs.keys() - taken.keys() - tied_names(self.model).keys() - set(fresh))
        self.__dict__.pop("model")  # its weights would otherwise stay in memory for the whole run
        rest = f", left out: {_some(left)}" if left else ""
        trained = "adapters" if lora else "all of them"
        why = f"{len(taken)} tensors taken over, fresh: {_some(fresh)}{rest}; {trained} are trained"
        return Choice("training.start_from", self.name, why)


def changed(config: Any, changes: dict[str, Any]) -> Any:
    """A configuration with other values; of an encoder-decoder both halves are changed, as `make` does with one value.

    Raises:
        UsageError: they do not fit.
    """
    if not isinstance(config, EncoderDecoderConfig):
        return type(config).make(**{**config.model_dump(), **changes})
    own = {key: changes[key] for key in changes.keys() & type(config).model_fields.keys()}
    names = {"source_vocab_size": "vocab_size", "n_decoder_layer": "n_layer"}
    halves = []
    for half, only in ((config.encoder, "source_vocab_size"), (config.decoder, "n_decoder_layer")):
        fields = {key: value for key, value in changes.items() if key in type(half).model_fields}
        if only in changes:
            fields[names[only]] = changes[only]
        halves.append(changed(half, fields))
    return type(config).make(**{**dict(config), **own, "encoder": halves[0], "decoder": halves[1]})


def current(config: Any, key: str) -> Any:
    """The value of a configuration under a key of [model]; both where the halves of an encoder-decoder differ."""
    value: Any
    if isinstance(config, DualEncoderConfig):
        value = config.value_of(key)
    elif not isinstance(config, EncoderDecoderConfig):
        value = getattr(config, key, None)
    elif key in ("source_vocab_size", "n_decoder_layer"):
        value = config.encoder.vocab_size if key == "source_vocab_size" else config.decoder.n_layer
    elif key in type(config).model_fields:
        value = getattr(config, key)
    else:
        first, second = getattr(config.encoder, key), getattr(config.decoder, key)
        value = first if first == second or key == "n_layer" else f"{first} and {second}"
    if hasattr(value, "model_dump"):
        return value.model_dump(exclude_none=True)
    return list(value) if isinstance(value, tuple) else value


def shapes(config: Any) -> dict[str, tuple[int, ...]]:
    """Every tensor of a model of this configuration, and its shape."""
    return {name: tuple(tensor.shape) for name, tensor in model_on_meta(config).state_dict().items()}


def tensors_of(config: Any, field: str) -> set[str]:
    """The tensors whose shape follows from a field: the tables of the vocabulary, the head of the classes. Tables of
    n-grams are the vocabulary's too, whatever number of rows they share."""
    grown = shapes(changed(config, {field: getattr(config, field) + 1}))
    found = {name for name, shape in shapes(config).items() if grown.get(name) != shape}
    return found | {name for name in grown if field == "vocab_size" and "n_grams" in name.split(".")}


def _some(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + rest if names else "none"
