"""Level 3: parts put together into models, and the one configuration they are built from."""

from glassformer.models.config import FAMILIES, ModelConfig
from glassformer.models.counts import FlopsPerToken, flops_per_token, parameters_by_part
from glassformer.models.decoder import Decoder, positions_of
from glassformer.models.init import INITS
from glassformer.models.sizes import SIZES, dial

__all__ = [
    "FAMILIES",
    "INITS",
    "SIZES",
    "Decoder",
    "FlopsPerToken",
    "ModelConfig",
    "dial",
    "flops_per_token",
    "parameters_by_part",
    "positions_of",
]
