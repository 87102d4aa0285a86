"""Level 2: stems, from features to (B, T, C), the only thing that the blocks understand. So far: text."""

from glassformer.modalities.text import NGrams, TextStem

__all__ = ["NGrams", "TextStem"]
