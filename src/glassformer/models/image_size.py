"""A Vision Transformer at another image size: the same patches, more or fewer of them, and positions in between.

    8 x 8 pixels, patches of 4       12 x 12 pixels
    1 2                              1    1.5  2
    3 4              ──►             2    2.5  3      positions, interpolated where the patches lie in the image
                                     3    3.5  4

Dosovitskiy et al. 2020, https://arxiv.org/abs/2010.11929, sect. 3.2.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.layers import Full, Graph
from glassformer.models.building import build_model
from glassformer.models.encoder_config import EncoderConfig


def at_image_size(model: Any, image_size: int) -> Any:
    """The same model for images of another height and width, in eval mode; weights but the positions are shared.

    Raises:
        UsageError: it reads no images, the size is no multiple of its patches, or its positions or masks number the
            patches of one size.
    """
    config = model.config
    if getattr(config, "reads", "") != "patches":
        raise UsageError(f"this {type(model).__name__} reads no images, so image_size={image_size} means nothing")
    if image_size == config.image_size:
        return model
    if not isinstance(config, EncoderConfig):
        name = type(model).__name__
        raise UsageError(f"this {name} reads images of {config.image_size} pixels as tokens; leave image_size out")
    other = sized_config(config, image_size)
    made = build_model(other)
    weights = model.state_dict()
    if "positions.weight" in weights:
        weights["positions.weight"] = interpolated(weights["positions.weight"], config, other)
    made.load_state_dict(weights, assign=True)
    made.generation_settings = copy.copy(model.generation_settings)
    return made.eval()


def sized_config(config: EncoderConfig, image_size: int) -> EncoderConfig:
    """A configuration for another image size. Raises `UsageError` as `at_image_size`."""
    if config.positions not in ("learned", "none"):
        raise UsageError(
            f"positions={config.positions} number the patches of {config.image_size} pixels row by row, and at "
            f"image_size={image_size} they would be others; train with positions=learned"
        )
    if not all(isinstance(mask, (Full, Graph)) for mask in config.layer_masks()):
        masks = ", ".join(config.patterns or ())
        raise UsageError(f"patterns={masks} are made for image_size={config.image_size}; give images of it")
    fields = {name: value for name, value in config.model_dump().items() if name != "block_size"}
    return EncoderConfig.make(**{**fields, "image_size": image_size})


def interpolated(positions_TC: Tensor, old: EncoderConfig, new: EncoderConfig) -> Tensor:
    """Learned positions of one image size for another, by bicubic interpolation as in transformers; the tokens before
    the patches keep theirs."""
    before_BC, patches_PC = positions_TC[: old.n_before], positions_TC[old.n_before :]
    n, m = (math.isqrt(config.n_patches) for config in (old, new))
    grid_1CNN = patches_PC.float().T.reshape(1, -1, n, n)
    wider = F.interpolate(grid_1CNN, size=(m, m), mode="bicubic", align_corners=False)
    return torch.cat((before_BC, wider.flatten(2)[0].T.to(positions_TC.dtype)))
