"""Which model belongs to which configuration: what is saved under a kind is built from it again."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from torch import nn

from glassformer import plugins
from glassformer.errors import UsageError
from glassformer.models.config import ModelConfig
from glassformer.models.decoder import Decoder
from glassformer.models.decoder_classifier import DecoderClassifier, DecoderClassifierConfig
from glassformer.models.dual_encoder import DualEncoder, DualEncoderConfig
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_config import EncoderConfig, EncoderDecoderConfig
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.speech_decoder import SpeechDecoder, SpeechDecoderConfig
from glassformer.models.trajectory_decoder import TrajectoryDecoder, TrajectoryDecoderConfig
from glassformer.models.vector_decoder import VectorDecoder, VectorDecoderConfig

# kind -> its configuration (`Checked`), and the model, which is made of one
MODELS: dict[str, tuple[Any, Any]] = {
    "decoder": (ModelConfig, Decoder),
    "encoder": (EncoderConfig, Encoder),
    "encoder_decoder": (EncoderDecoderConfig, EncoderDecoder),
    "vector_decoder": (VectorDecoderConfig, VectorDecoder),
    "trajectory_decoder": (TrajectoryDecoderConfig, TrajectoryDecoder),
    "speech_decoder": (SpeechDecoderConfig, SpeechDecoder),
    "decoder_classifier": (DecoderClassifierConfig, DecoderClassifier),
    "dual_encoder": (DualEncoderConfig, DualEncoder),
}
CLASSIFIERS = {"decoder": "decoder_classifier"}
"""Kinds that become another with a head over classes in place of their own."""


def kinds_that_answer(asked: str) -> list[str]:
    """The kinds of model that an objective may ask this (`Objective.asks`); the first is the one taken by default."""
    plugins.load_installed()
    return [kind for kind, (_, model) in MODELS.items() if model.is_trained and asked in model.answers]


def registered(kind: str) -> tuple[Any, Any]:
    """The configuration and the model of a kind, plug-ins included.

    Raises:
        UsageError: there is no such kind.
    """
    if kind not in MODELS:
        plugins.load_installed()
    if kind not in MODELS:
        raise UsageError(plugins.unknown("model.kind", kind, MODELS))
    return MODELS[kind]


def answers_of(config: Any) -> frozenset[str]:
    """What the model of a configuration answers (`Model.answers`)."""
    return frozenset(registered(kind_of(config))[1].answers)


def config_fields(kind: str) -> dict[str, FieldInfo]:
    """The fields that `make_config` takes for a kind, each with its type and limits."""
    fields: dict[str, FieldInfo] = registered(kind)[0].make_fields()
    return fields


def stacks_of(config: Any) -> tuple[Any, ...]:
    """The configurations of the stacks of blocks that a model has: two of an encoder-decoder or a dual encoder, else
    its own."""
    return getattr(config, "stacks", (config,))


def kind_of(config: Any) -> str:
    """The name of a configuration's kind in `MODELS`."""
    kind: str | None = getattr(config, "kind", None)
    return kind or next(name for name, (made_from, _) in MODELS.items() if type(config) is made_from)


def make_config(kind: str, /, **fields: Any) -> Any:
    """A configuration of a kind.

    Raises:
        UsageError: there is no such kind, or the fields do not fit.
    """
    made_from = registered(kind)[0]
    return made_from.make(**(fields | {"kind": kind} if "kind" in made_from.model_fields else fields))


def build_model(
    config: Any, *, dropout: float = 0.0, attention_dropout: float | None = None, token_dropout: float = 0.0
) -> nn.Module:
    """The model of a configuration, weights drawn from the global generator; the dropouts are `set_dropout`'s."""
    model = registered(kind_of(config))[1](config)
    model.set_dropout(dropout, attention_dropout, token_dropout)
    return model  # type: ignore[no-any-return]
