"""Level 2: stems, from features to (B, T, C), of text, images, sound, vectors, trajectories, sets."""

from glassformer.models.stems.frame_levels import FrameLevelStem
from glassformer.models.stems.frames import FrameStem
from glassformer.models.stems.patches import PatchConvolutions, PatchStem
from glassformer.models.stems.sets import SetStem
from glassformer.models.stems.text import NGrams, TextStem
from glassformer.models.stems.triples import TripleStem
from glassformer.models.stems.vectors import VectorStem

__all__ = [
    "FrameLevelStem",
    "FrameStem",
    "NGrams",
    "PatchConvolutions",
    "PatchStem",
    "SetStem",
    "TextStem",
    "TripleStem",
    "VectorStem",
]
