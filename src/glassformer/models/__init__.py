"""Level 3: parts put together into models, and the one configuration they are built from."""

from glassformer.models.building import (
    MODELS,
    answers_of,
    build_model,
    config_fields,
    kind_of,
    kinds_that_answer,
    make_config,
    registered,
    stacks_of,
)
from glassformer.models.config import ModelConfig
from glassformer.models.counts import FlopsPerToken, flops_per_token, parameter_count, parameters_by_part
from glassformer.models.decoder import Decoder
from glassformer.models.decoder_classifier import DecoderClassifier, DecoderClassifierConfig
from glassformer.models.dual_encoder import DualEncoder, DualEncoderConfig
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_config import EncoderConfig, EncoderDecoderConfig
from glassformer.models.encoder_decoder import EncoderDecoder
from glassformer.models.generation_settings import NOTHING_SET, GenerationSettings, settings_of
from glassformer.models.init import INITS
from glassformer.models.presets import FAMILIES
from glassformer.models.sizes import SIZES, dial
from glassformer.models.speech_decoder import SpeechDecoder, SpeechDecoderConfig
from glassformer.models.trajectory_decoder import TrajectoryDecoder, TrajectoryDecoderConfig
from glassformer.models.transformer import Transformer, positions_of
from glassformer.models.vector_decoder import VectorDecoder, VectorDecoderConfig

__all__ = [
    "FAMILIES",
    "INITS",
    "MODELS",
    "NOTHING_SET",
    "SIZES",
    "Decoder",
    "DecoderClassifier",
    "DecoderClassifierConfig",
    "DualEncoder",
    "DualEncoderConfig",
    "Encoder",
    "EncoderConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "FlopsPerToken",
    "GenerationSettings",
    "ModelConfig",
    "SpeechDecoder",
    "SpeechDecoderConfig",
    "TrajectoryDecoder",
    "TrajectoryDecoderConfig",
    "Transformer",
    "VectorDecoder",
    "VectorDecoderConfig",
    "answers_of",
    "build_model",
    "config_fields",
    "dial",
    "flops_per_token",
    "kind_of",
    "kinds_that_answer",
    "make_config",
    "parameter_count",
    "parameters_by_part",
    "positions_of",
    "registered",
    "settings_of",
    "stacks_of",
]
