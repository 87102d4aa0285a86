"""What tasks that read images share: the size, and how training images are changed at random."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pydantic import Field

from glassformer.data.augmentation import Augmentation
from glassformer.data.images import LabelledImages
from glassformer.errors import UsageError
from glassformer.processors.image import ImageProcessor
from glassformer.tasks.settings import Choice, TaskSettings


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

    def check_size(self, processor: ImageProcessor) -> None:
        """Raise `UsageError` if a model's own processor makes images of another size."""
        if self.image_size not in (None, processor.size[0]):
            raise UsageError(f"task.image_size={self.image_size}, and the model reads {processor.size[0]}")

    def change_at_random(self, batches: Any, place: int = 0) -> None:
        """Let training batches change images, which are at `place` of each example, if there is anything to change."""
        if not (augmentation := self.augmentation).changes:
            return
        collate = batches.collate

        def changed(examples: Sequence[Any], random: np.random.Generator) -> Any:
            return collate([(*e[:place], augmentation(e[place], random), *e[place + 1 :]) for e in examples])

        batches.collate, batches.by_chance = changed, True


def side_of(asked: int | None, images: LabelledImages, known: Any, choices: list[Choice]) -> int:
    """Height and width that images are resized to: those `asked` for, else those of a named set (`known`), else the
    shorter side of the first training image; a choice that was not asked for is noted."""
    if asked is not None:
        return asked
    if known:
        side: int = known.size[0]
    else:
        from PIL import Image

        with Image.open(images["train"][0].image) as image:
            side = min(image.size)
    choices.append(Choice("task.image_size", side, f"of {known.name if known else 'the first image'}"))
    return side
