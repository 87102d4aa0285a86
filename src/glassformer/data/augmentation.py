"""Images changed at random, so that a model sees another image each time: turned, scaled, sheared, moved, mirrored.

Simard, Steinkraus and Platt 2003, "Best practices for convolutional neural networks applied to visual document
analysis": for handwritten digits affine changes halve the error.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np


class Augmentation(NamedTuple):
    """How much an image is changed at most; each number is drawn evenly from minus that to plus that.

    Attributes:
        rotation: in degrees. scaling: share of the size. shear: columns a row. translation: share of the side.
        flip: whether every second image is mirrored.
    """

    rotation: float = 0.0
    scaling: float = 0.0
    shear: float = 0.0
    translation: float = 0.0
    flip: bool = False

    @property
    def changes(self) -> bool:
        """Whether it does anything."""
        return any(self)

    def __call__(self, pixels_CHW: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """The image changed, in the same shape; what comes in from outside is as the nearest pixel at the edge."""
        from scipy.ndimage import affine_transform  # 0.1 s to import

        turn, scale, shear, down, right = random.uniform(-1, 1, 5)
        if random.random() < 0.5 and self.flip:
            pixels_CHW = pixels_CHW[..., ::-1]
        angle, size = math.radians(turn * self.rotation), np.array(pixels_CHW.shape[1:])
        rotated = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        matrix = rotated @ np.array([[1, 0], [shear * self.shear, 1]]) / (1 + scale * self.scaling)
        middle = (size - 1) / 2
        offset = middle - matrix @ (middle + np.array([down, right]) * self.translation * size)
        moved = [affine_transform(channel, matrix, offset, order=1, mode="nearest") for channel in pixels_CHW]
        return np.stack(moved).astype(pixels_CHW.dtype)
