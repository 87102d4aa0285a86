"""Level 1: the parts of a Transformer. Shapes have one letter for each axis:

    B batch   T time (queries)   S source length (keys)   C channels (n_embd)   H heads   K key-value heads
    D head width   F hidden width   V vocabulary

Where several shapes meet, the name carries its shape: `q_BHTD`.
"""

from glassformer.layers.attention import Attention, CrossAttention, Memory
from glassformer.layers.batch_masks import Documents, Graph, GraphMask, PaddingMask
from glassformer.layers.block import Block, LayerNorms, OutputNormBlock, ParallelBlock, PostNormBlock, SandwichBlock
from glassformer.layers.cache import KVCache
from glassformer.layers.experts import Experts, balance_loss
from glassformer.layers.feedforward import ACTIVATIONS, ClampedFeedForward, FeedForward, GatedFeedForward
from glassformer.layers.int8 import Int8Linear, int8_copy
from glassformer.layers.mask_text import MASKS, parse_mask
from glassformer.layers.masks import And, BidirectionalWindow, Causal, Full, Mask, Or, Prefix, Sinks, Window
from glassformer.layers.norms import NORMS, LayerNorm, RMSNorm, ZeroCenteredRMSNorm
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
from glassformer.layers.sparse_attention import attend_by_flex, attend_locally
from glassformer.renamed import keep_old_names

__all__ = [
    "ACTIVATIONS",
    "MASKS",
    "NORMS",
    "POSITIONS",
    "ROTARY_SCALINGS",
    "SINUSOID_LAYOUTS",
    "AlibiPositions",
    "And",
    "Attention",
    "BidirectionalWindow",
    "Block",
    "Causal",
    "ClampedFeedForward",
    "CrossAttention",
    "Documents",
    "Experts",
    "FeedForward",
    "Full",
    "GatedFeedForward",
    "Graph",
    "GraphMask",
    "Int8Linear",
    "KVCache",
    "LayerNorm",
    "LayerNorms",
    "LearnedPositions",
    "Mask",
    "Memory",
    "NoPositions",
    "Or",
    "OutputNormBlock",
    "PaddingMask",
    "ParallelBlock",
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
    "Window",
    "ZeroCenteredRMSNorm",
    "attend_by_flex",
    "attend_locally",
    "balance_loss",
    "int8_copy",
    "parse_mask",
]

keep_old_names(__name__)
