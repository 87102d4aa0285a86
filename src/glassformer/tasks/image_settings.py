"""[task] of tasks that read images: the size, and how training images are changed at random."""

from __future__ import annotations

from pydantic import Field

from glassformer.data.augmentation import Augmentation
from glassformer.tasks.settings import TaskSettings


class ImageSettings(TaskSettings):
    """What these tasks have in common."""

    image_size: int | None = Field(default=None, ge=1, le=4096)
    """height and width that images are resized to; None: those of a named set, else of the first image"""
    rotation: float = Field(default=0.0, ge=0, le=180)
    """degrees by which a training image is turned at most, either way"""
    scaling: float = Field(default=0.0, ge=0, lt=1)
    """share of its size by which it is made larger or smaller at most"""
    shear: float = Field(default=0.0, ge=0, le=1)
    """how far a row is moved at most, by its distance from the middle row"""
    translation: float = Field(default=0.0, ge=0, le=1)
    """share of its side by which it is moved at most, along each axis"""
    flip: bool = False
    """whether every second one is mirrored, left to right"""

    @property
    def augmentation(self) -> Augmentation:
        """The changes of a training image; evaluations see images unchanged."""
        return Augmentation(self.rotation, self.scaling, self.shear, self.translation, self.flip)
