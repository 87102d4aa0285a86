"""Names of version 0.1 that have changed still work; a DeprecationWarning gives the new name.

from glassformer.objectives import NextToken    glassformer.objectives is called glassformer.tasks now
"""

from __future__ import annotations

import functools
import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

MODULES = {
    "data.word_batches": "history.word_batches",
    "data.word_tests": "history.word_tests",
    "evaluation.word_vectors": "history.word_vectors",
    "experiments": "history",
    "interchange": "hub",
    "modalities": "models.stems",
    "models.history": "history",
    "objectives": "tasks",
    "tasks.skip_gram": "history.skip_gram_task",
    "tokenizers": "processors.tokenizers",
}
"""Packages and modules: old name -> new name. The modules of a package move with it."""

NAMES = {
    "data.Encoded": "a task encodes its examples (tasks.ExampleTask.encode)",
    "data.encode_examples": "use tasks.Translate.encode, or tokenizer.encode_documents",
    "data.encode_labelled": "use tasks.Classify.encode, or tokenizer.encode_documents",
    "data.encode_sources": "use tokenizer.encode_documents",
    "data.WordBatches": "history.WordBatches",
    "data.WordTests": "history.WordTests",
    "data.load_word_tests": "history.load_word_tests",
    "data.word_counts": "history.word_counts",
    "data.word_rows": "history.word_rows",
    "evaluation.WordVectorScores": "history.WordVectorScores",
    "evaluation.evaluate_loss": "tasks.evaluate_loss",
    "evaluation.score_word_vectors": "history.score_word_vectors",
    "evaluation.window_losses": "tasks.window_losses",
    "generation.choose": "generation.sample",
    "generation.draw_answers": "generation.sample_answers",
    "history.skip_gram_task.SkipGram": "history.SkipGramTask",
    "hub.INTERCHANGE_FAMILIES": "hub.FAMILIES",
    "hub.family_that_expresses": "hub.family_for",
    "inspection.Cell": "its products are those of two fields of AttentionWalkthrough, such as query and key",
    "inspection.Excitation": "inspection.Activation",
    "inspection.TensorView": "inspection.TensorsView",
    "inspection.tensor": "inspection.tensors",
    "inspection.step": "inspection.attention_walkthrough",
    "inspection.StepView": "inspection.AttentionWalkthrough",
    "native.draw": "native.sample",
    "layers.Around": "layers.BidirectionalWindow",
    "layers.Edges": "layers.GraphMask",
    "layers.Globals": "draw the graph with GraphMask",
    "layers.Lengths": "layers.PaddingMask",
    "layers.PATTERNS": "layers.MASKS",
    "layers.Pattern": "layers.Mask",
    "layers.Strided": "draw the graph with GraphMask",
    "layers.parse_pattern": "layers.parse_mask",
    "server.Served": "server.ModelHandle",
    "tasks.OBJECTIVES": "tasks.TASKS",
    "tasks.Objective": "tasks.Task",
    "tasks.ObjectiveSettings": "tasks.TaskSettings",
    "tasks.RowLosses": "evaluation.RowLosses",
    "tasks.SequenceClass": "tasks.Classify",
    "tasks.SkipGram": "history.SkipGramTask",
    "tasks.TargetSentence": "tasks.Translate",
    "tasks.TokenClass": "tasks.Tag",
    "training.History": "training.RunHistory",
    "training.Listener": "training.Callback",
    "training.TREATMENTS": "training.ON_DIVERGENCE",
    "training.Update": "training.TrainStep",
}
"""Public names inside packages: old -> new, both with the new name of their package; or what to do instead."""


class OldModules:
    """A finder for `sys.meta_path`: a module under an old name, which has the names of the new one."""

    @classmethod
    def find_spec(cls, name: str, path: Sequence[str] | None = None, target: Any = None) -> ModuleSpec | None:
        front, _, rest = name.partition(".")
        old = next((old for old in MODULES if f"{rest}.".startswith(f"{old}.")), None)
        if front != __package__ or old is None:
            return None
        new = f"{front}.{MODULES[old]}{rest.removeprefix(old)}"
        return ModuleSpec(name, cls(), origin=new, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        return None  # an ordinary empty one

    def exec_module(self, module: ModuleType) -> None:
        spec = module.__spec__
        assert spec is not None and spec.origin is not None
        try:
            new = importlib.import_module(spec.origin)
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                f"{spec.name} has moved, and {error.name} does not exist", name=spec.name
            ) from None
        _warn(spec.name, spec.origin)
        module.__getattr__ = lambda name: getattr(new, name)  # type: ignore[method-assign]


def keep_old_names(package: str) -> None:
    """Let a package answer to the old names that `NAMES` has for it, beside those of its own `__getattr__`."""
    own = vars(sys.modules[package]).get("__getattr__")

    def getattr_(name: str) -> Any:
        old = f"{package.removeprefix(f'{__package__}.')}.{name}"
        if old not in NAMES and own is not None:
            return own(name)
        if old not in NAMES:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if " " in NAMES[old]:
            raise AttributeError(f"{package}.{name} is gone; {NAMES[old]}")
        home, _, new = f"{__package__}.{NAMES[old]}".rpartition(".")
        _warn(f"{package}.{name}", f"{home}.{new}")
        return getattr(importlib.import_module(home), new)

    sys.modules[package].__getattr__ = getattr_  # type: ignore[method-assign]


def old_arguments(**names: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator: the function takes keyword arguments under their old names (old=new), too."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def call(*args: P.args, **given: P.kwargs) -> R:
            for old in names.keys() & given:
                _warn(f"{function.__qualname__}({old}=)", f"{names[old]}=")
                if names[old] in given:
                    raise TypeError(f"{function.__qualname__}() got {old}= and {names[old]}=, which are the same")
                given[names[old]] = given.pop(old)
            return function(*args, **given)

        return call

    return decorate


def old_method(new: str) -> Callable[..., Any]:
    """A method of 0.1 that is another method now or, with a dot, a function: "models.parameter_count"."""
    home, _, name = new.rpartition(".")

    def call(self: Any, *args: Any, **given: Any) -> Any:
        _warn(f"that method of {type(self).__name__}", f"{__package__}.{new}" if home else name)
        if home:
            return getattr(importlib.import_module(f"{__package__}.{home}"), name)(self, *args, **given)
        return getattr(self, name)(*args, **given)

    return call


def _warn(old: str, new: str) -> None:
    warnings.warn(f"{old} is called {new} now", DeprecationWarning, stacklevel=3)
