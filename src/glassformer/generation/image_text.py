"""Images and texts compared: which text fits an image, which image fits a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.errors import UsageError, plural
from glassformer.generation.encoders import padded
from glassformer.generation.eval_mode import evaluating
from glassformer.processors.image_text import ImageTextProcessor

ROWS = 64  # images or texts that are read together


def image_vectors(model: Any, processor: ImageTextProcessor, images: Sequence[Any]) -> Tensor:
    """A vector of length 1 for each image, a path, an array or a `PIL.Image`: (N, n_joint) fp32.

    Raises:
        DataError: an image cannot be read.
    """
    device = next(model.parameters()).device
    found = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(images), ROWS):
            pixels = torch.from_numpy(processor.image.encode_batch(images[start : start + ROWS]))
            found.append(model.image_vectors(pixels.to(device)).float().cpu())
    return torch.cat(found) if found else torch.zeros(0, model.config.n_joint)


def text_vectors(model: Any, processor: ImageTextProcessor, texts: Sequence[str]) -> Tensor:
    """A vector of length 1 for each text: (N, n_joint) fp32.

    Raises:
        UsageError: a text is empty, or longer than the model reads.
    """
    device, most = next(model.parameters()).device, model.config.block_size
    rows = [processor.encode_text(text) for text in texts]
    for text, ids in zip(texts, rows, strict=True):
        if len(ids) < 2:
            raise UsageError(f"{text!r} is empty; give it a word the model knows, or leave it out")
        if len(ids) > most:
            raise UsageError(f"{text[:60]!r} has {plural(len(ids), 'token')} and the model reads {most}; shorten it")
    found = []
    with evaluating(model), torch.inference_mode():
        for start in range(0, len(rows), ROWS):
            ids_NT, lengths_N = (part.to(device) for part in padded(rows[start : start + ROWS]))
            found.append(model.text_vectors(ids_NT, lengths_N).float().cpu())
    return torch.cat(found) if found else torch.zeros(0, model.config.n_joint)


def similarities(model: Any, processor: ImageTextProcessor, images: Sequence[Any], texts: Sequence[str]) -> Tensor:
    """Cosines of images and texts by the model's temperature, (images, texts) fp32: their softmax over the texts is
    how probable each is for an image, that over the images how probable each is for a text. Raises as both above."""
    with torch.inference_mode():
        found: Tensor = model.compare(
            image_vectors(model, processor, images).to(model.logit_scale),
            text_vectors(model, processor, texts).to(model.logit_scale),
        )
        return found.float().cpu()
