"""The configuration of a run's model, from what the recipe sets, size, dial (`n_layer`), family and data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glassformer.errors import UsageError, did_you_mean, plural
from glassformer.models import (
    MODELS,
    SIZES,
    DecoderClassifierConfig,
    DualEncoderConfig,
    EncoderConfig,
    EncoderDecoderConfig,
    ModelConfig,
    config_fields,
    dial,
    kinds_that_answer,
    make_config,
    registered,
)
from glassformer.recipes.schema import Recipe
from glassformer.tasks import TASKS


def kind_for(r: Recipe) -> str:
    """The kind of model that a recipe names, or else the first that can do its task.

    Raises:
        UsageError: this kind cannot.
    """
    kinds = kinds_that_answer(TASKS[r.task.kind].asks)
    kind = r.model.kind or kinds[0]
    if not registered(kind)[1].is_trained:
        raise UsageError(f"model.kind={kind} is not trained by gradients; use {' or '.join(kinds)}")
    if kind not in kinds:
        raise UsageError(f"model.kind={kind} cannot do task.kind={r.task.kind}; use {' or '.join(kinds)}")
    return kind


def is_transformer(kind: str) -> bool:
    """Whether a model of this kind is made of blocks, so that sizes, the dial and families mean something to it."""
    return issubclass(MODELS[kind][0], (ModelConfig, EncoderDecoderConfig, DualEncoderConfig))


def facts_for(r: Recipe, kind: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Of what the task and the data decide (`Task.head`, `Task.model_fields`), the fields of this kind's
    configuration."""
    known = set(config_fields(kind))
    if facts.get("source_vocab_size") == facts.get("vocab_size"):
        known.discard("source_vocab_size")  # one vocabulary for both
    return {key: value for key, value in {**TASKS[r.task.kind].head, **facts}.items() if key in known}


def model_config(r: Recipe, **facts: Any) -> Any:
    """The full configuration of a fresh model of the recipe's kind: what is set stands; `size` fills in, then the dial
    `n_layer`, then the family; `facts` are what the data decide (`Task.model_fields`): each kind takes what it knows.

    Raises:
        UsageError: something does not fit.
    """
    kind = kind_for(r)
    given, base = r.model.fields, dict[str, Any]()
    if is_transformer(kind):
        base = {"family": "classic", **TASKS[r.task.kind].defaults}
        if r.model.size is not None:
            base |= named_size(r.model.size)
        elif n_layer := given.get("n_layer"):
            derived = dial(n_layer)
            if "n_embd" in given and "n_head" not in given:
                derived["n_head"] = max(1, given["n_embd"] // 64)
            base |= derived
        else:
            base |= dial(6)
    elif r.model.size is not None:
        raise UsageError(f"model.size={r.model.size!r} is that of a Transformer; give model.kind={kind} its own sizes")
    facts = facts_for(r, kind, facts)
    if clash := next((key for key in given.keys() & facts.keys() if given[key] != facts[key]), None):
        raise UsageError(f"model.{clash}={given[clash]}, and the data make it {facts[clash]}; leave it out")
    config = make_config(kind, **{**base, **given, **facts})
    if config.reads != (reads := TASKS[r.task.kind].reads):
        raise UsageError(
            f"model.stem={config.reads}, and task.kind={r.task.kind} gives a model {reads}; leave out model.stem, or "
            "choose another task.kind"
        )
    return config


def named_size(name: str) -> dict[str, Any]:
    """The fields of a size by name.

    Raises:
        UsageError: there is no such size.
    """
    if name not in SIZES:
        raise UsageError(f"model.size={name!r} is unknown; {did_you_mean(name, SIZES)}")
    return SIZES[name]


def shape_in_words(config: Any) -> str:
    """A configuration in a line."""
    if isinstance(config, ModelConfig):
        shape = f"{plural(config.n_layer, 'layer')}, {plural(config.n_head, 'head')}, {config.n_embd} wide"
        context = f"{plural(config.block_size, 'token')} of context"
        logits = (
            ""
            if isinstance(config, (EncoderConfig, DecoderClassifierConfig))
            else f", {plural(config.vocab_size, 'logit')}"
        )
        return f"{config.family}, {shape}, {context}{logits}"
    if isinstance(config, EncoderDecoderConfig):
        e, d = config.encoder, config.decoder
        shape = f"{e.n_layer} + {plural(d.n_layer, 'layer')}, {plural(d.n_head, 'head')}, {d.n_embd} wide"
        return f"{d.family}, {shape}, {plural(d.block_size, 'token')} at most, {plural(d.vocab_size, 'logit')}"
    if isinstance(config, DualEncoderConfig):
        image, text = config.image, config.text
        layers = f"{image.n_layer} + {plural(text.n_layer, 'layer')}, {image.n_embd} and {text.n_embd} wide"
        return f"{text.family}, {layers}, {image.n_patches} patches, {config.n_joint} numbers to compare"
    sizes = config.model_dump(exclude={"kind"}, exclude_none=True)
    return f"{config.kind}, " + ", ".join(f"{name} {value}" for name, value in sizes.items())
