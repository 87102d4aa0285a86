"""Test-time averaging: the classes of an image, and of the same image moved a little up, down, left and right.

An answer that hangs on where exactly the strokes fall between patches differs among the five; their mean does not
(Krizhevsky, Sutskever and Hinton 2012, section 4.1, average over five crops).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from glassformer.errors import UsageError

COPIES = 5


def check_shift(shift: float) -> None:
    """Raise `UsageError` unless it is from 0, which is no averaging, to 1."""
    if not 0 <= shift <= 1:
        raise UsageError(f"shift={shift:g} is out of range; use 0 (off) to 1 pixel")


def moved(images_BCHW: Tensor, shift: float) -> Tensor:
    """The images, and each moved by `shift` pixels down, up, right and left: (5, B, C, H, W). Between pixels they are
    interpolated; what comes in from outside is as the pixel at the edge."""
    H, W = images_BCHW.shape[-2:]
    wide = F.pad(images_BCHW, (1, 1, 1, 1), mode="replicate")
    neighbours = [wide[..., i : i + H, j : j + W] for i, j in ((0, 1), (2, 1), (1, 0), (1, 2))]
    return torch.stack([images_BCHW, *((1 - shift) * images_BCHW + shift * each for each in neighbours)])


def class_probabilities(model: Any, images_BCHW: Tensor, shift: float = 0.0) -> Tensor:
    """(B, classes), the mean over the five copies where `shift` is not 0."""
    if not shift:
        logits: Tensor = model.sequence_logits(model(images_BCHW))
        return logits.float().softmax(dim=-1)
    copies = moved(images_BCHW, shift)
    logits = model.sequence_logits(model(copies.flatten(0, 1)))
    return logits.float().softmax(dim=-1).unflatten(0, (COPIES, -1)).mean(dim=0)
