"""Level 1: the parts of a Transformer. Shapes are told in one letter each:

    B batch   T time (queries)   S source length (keys)   C channels (n_embd)   H heads   K key-value heads
    D head width   F hidden width   V vocabulary

Where several shapes meet, the name carries its shape: `q_BHTD`.
"""

from glassformer.layers.attention import Attention
from glassformer.layers.block import Block
from glassformer.layers.cache import KVCache
from glassformer.layers.feedforward import ACTIVATIONS, FeedForward, GatedFeedForward
from glassformer.layers.int8 import Int8Linear, int8_copy
from glassformer.layers.norms import NORMS, LayerNorm, RMSNorm
from glassformer.layers.patterns import Causal, Full, Pattern, Window
from glassformer.layers.positions import POSITIONS, LearnedPositions, NoPositions, Positions, RotaryPositions

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "POSITIONS",
    "Attention",
    "Block",
    "Causal",
    "FeedForward",
    "Full",
    "GatedFeedForward",
    "Int8Linear",
    "KVCache",
    "LayerNorm",
    "LearnedPositions",
    "NoPositions",
    "Pattern",
    "Positions",
    "RMSNorm",
    "RotaryPositions",
    "Window",
    "int8_copy",
]
