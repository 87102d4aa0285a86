"""Level 4: from logits to text, as four small jobs: logits (with a cache), filter, choose, tell."""

from glassformer.generation.beam import Hypothesis, beam_search
from glassformer.generation.generate import Completion, generate, stream
from glassformer.generation.sampling import Sampling, choose, filtered_probabilities
from glassformer.generation.text import Alternative, Piece, StopStrings
from glassformer.generation.windows import next_logits

__all__ = [
    "Alternative",
    "Completion",
    "Hypothesis",
    "Piece",
    "Sampling",
    "StopStrings",
    "beam_search",
    "choose",
    "filtered_probabilities",
    "generate",
    "next_logits",
    "stream",
]
