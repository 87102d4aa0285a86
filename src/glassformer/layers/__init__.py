"""Level 1: the parts of a Transformer. Shapes are told in one letter each:

    B batch   T time (queries)   S source length (keys)   C channels (n_embd)   H heads   K key-value heads
    D head width   F hidden width   V vocabulary

Where several shapes meet, the name carries its shape: `q_BHTD`.
"""

from glassformer.layers.attention import Attention, CrossAttention, Memory
from glassformer.layers.block import Block, LayerNorms, OutputNormBlock, ParallelBlock, PostNormBlock, SandwichBlock
from glassformer.layers.cache import KVCache
from glassformer.layers.experts import Experts, balance_loss
from glassformer.layers.feedforward import ACTIVATIONS, ClampedFeedForward, FeedForward, GatedFeedForward
from glassformer.layers.flex_attention import attend_by_flex
from glassformer.layers.int8 import Int8Linear, int8_copy
from glassformer.layers.local_attention import attend_locally
from glassformer.layers.norms import NORMS, LayerNorm, RMSNorm, ZeroCenteredRMSNorm
from glassformer.layers.pattern_text import parse_pattern
from glassformer.layers.patterns import (
    PATTERNS,
    Around,
    Causal,
    Documents,
    Edges,
    Full,
    Globals,
    Lengths,
    Pattern,
    Prefix,
    Sinks,
    Strided,
    Window,
)
from glassformer.layers.positions import (
    POSITIONS,
    SINUSOID_LAYOUTS,
    AlibiPositions,
    LearnedPositions,
    NoPositions,
    Positions,
    RelativePositions,
    RotaryPositions,
    SinusoidalPositions,
)
from glassformer.layers.rotary_scaling import ROTARY_SCALINGS
from glassformer.layers.row_cache import RowCache, Rows

__all__ = [
    "ACTIVATIONS",
    "NORMS",
    "PATTERNS",
    "POSITIONS",
    "ROTARY_SCALINGS",
    "SINUSOID_LAYOUTS",
    "AlibiPositions",
    "Around",
    "Attention",
    "Block",
    "Causal",
    "ClampedFeedForward",
    "CrossAttention",
    "Documents",
    "Edges",
    "Experts",
    "FeedForward",
    "Full",
    "GatedFeedForward",
    "Globals",
    "Int8Linear",
    "KVCache",
    "LayerNorm",
    "LayerNorms",
    "LearnedPositions",
    "Lengths",
    "Memory",
    "NoPositions",
    "OutputNormBlock",
    "ParallelBlock",
    "Pattern",
    "Positions",
    "PostNormBlock",
    "Prefix",
    "RMSNorm",
    "RelativePositions",
    "RotaryPositions",
    "RowCache",
    "Rows",
    "SandwichBlock",
    "Sinks",
    "SinusoidalPositions",
    "Strided",
    "Window",
    "ZeroCenteredRMSNorm",
    "attend_by_flex",
    "attend_locally",
    "balance_loss",
    "int8_copy",
    "parse_pattern",
]
