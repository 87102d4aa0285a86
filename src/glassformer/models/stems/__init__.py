"""Level 2: stems, from features to (B, T, C), the only thing that the blocks understand: text, images, sound."""

from glassformer.models.stems.frames import FrameStem
from glassformer.models.stems.patches import PatchStem
from glassformer.models.stems.text import NGrams, TextStem

__all__ = ["FrameStem", "NGrams", "PatchStem", "TextStem"]
