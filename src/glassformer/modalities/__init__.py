"""Level 2: stems, from features to (B, T, C), the only thing that the blocks understand: text, images, sound."""

from glassformer.modalities.image import PatchStem
from glassformer.modalities.sound import FrameStem
from glassformer.modalities.text import NGrams, TextStem

__all__ = ["FrameStem", "NGrams", "PatchStem", "TextStem"]
