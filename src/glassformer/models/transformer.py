"""What decoders and encoders share: positions, a stack of blocks, a final norm, and how they are built from fields.

vectors ──► block ──► block ──► ... ──► final norm ──► vectors
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers import (
    NORMS,
    Attention,
    Block,
    ClampedFeedForward,
    CrossAttention,
    Experts,
    FeedForward,
    Full,
    GatedFeedForward,
    KVCache,
    Mask,
    Memory,
    NoPositions,
    OutputNormBlock,
    ParallelBlock,
    Positions,
    PostNormBlock,
    RMSNorm,
    Rows,
    SandwichBlock,
)
from glassformer.models.config import ModelConfig
from glassformer.models.generation_settings import NOTHING_SET, GenerationSettings
from glassformer.models.init import INITS
from glassformer.models.stems import FrameLevelStem, FrameStem, PatchStem, SetStem, TextStem, TripleStem, VectorStem
from glassformer.taps import Tap

STEMS = (TextStem, PatchStem, FrameStem, FrameLevelStem, VectorStem, TripleStem, SetStem)
DROPPING = (*STEMS, Attention, CrossAttention, FeedForward, GatedFeedForward)
"""The layers that have a rate of dropout."""


class Model(nn.Module):
    """What every model made of our layers can do.

    Dropout is a matter of training and so not part of the configuration: `set_dropout` changes it on a built model.

    answers: what an objective may ask of it (`Objective.asks`): "next_token" or "target" (it writes tokens),
        "masked_token", "class", "token_class", "neighbour", "number" (one for a sequence), "numbers",
        "action", "speech", "similarity" (of an image and a text).
    """

    answers: ClassVar[frozenset[str]] = frozenset()
    is_trained: ClassVar[bool] = True
    has_native_form: ClassVar[bool] = False  # whether `native.quantized_copy` may run its blocks in one compiled call
    config: Any
    generation_settings: GenerationSettings = NOTHING_SET

    def set_dropout(self, p: float, attention: float | None = None, tokens: float = 0.0) -> None:
        """Set the dropout rate everywhere: embedding, attention weights, both outputs of each block.

        attention: another rate for the attention weights. On a CPU the fused kernel knows only 0, and the written-out
        path takes three times as long at 256 tokens, for no gain in loss (docs/experiments.md).
        tokens: the share of tokens that are read as another one (`TextStem`).
        """
        for module in self.modules():
            if isinstance(module, DROPPING):
                module.dropout = p
            if isinstance(module, TextStem):
                module.token_dropout = tokens
            if isinstance(module, (Attention, CrossAttention)):
                module.weight_dropout = p if attention is None else attention

    def init_weights(self, kind: str = "gpt2") -> None:
        """Draw all weights again, from the global generator, in one of the ways of `INITS`.

        Raises:
            UsageError: there is no such way.
        """
        if kind not in INITS:
            raise UsageError(f"init={kind!r} is unknown; {did_you_mean(kind, INITS)}")
        INITS[kind](self, self.config.n_layer)

    @property
    def reads(self) -> str:
        """What comes in: "text" (token ids), "patches" of an image, "frames" of sound, "vectors",
        a "trajectory", a "set", a "graph", "characters" to be spoken, "image_text" (both)."""
        return self.config.reads  # type: ignore[no-any-return]

    @property
    def writes(self) -> bool:
        """Whether it produces text token by token."""
        return not {"next_token", "target"}.isdisjoint(self.answers)

    def parameter_count(self) -> int:
        """Number of trainable numbers; what is shared counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.parameter_count():,} parameters"


class Transformer(Model):
    """A stack of blocks over vectors, built from a configuration; the stem and the heads are the subclass's."""

    config: ModelConfig
    embedding: Any  # the stem: its `forward` differs with what comes in
    native: Any = None  # all blocks, or all there is, in one compiled call (`native.quantized_copy`)

    def _build(self, config: ModelConfig, stem: nn.Module, *, causal: bool, cross: bool = False) -> None:
        """Fill in the parts, in the order in which weights are drawn."""
        self.config = config
        self.masks: list[Mask] = config.layer_masks()
        self.embedding = stem
        self.positions = positions_of(config, causal=causal)
        local = config.rotary_base_local if config.positions == "rotary" else None
        used = local is not None and any(mask.is_local for mask in self.masks)
        self.local_positions = config.build_positions(base=local) if used else None  # of layers whose mask is local
        self.no_positions = None if all(config.positioned_layers or ()) else NoPositions()
        self.blocks = nn.ModuleList(_block(config, cross) for _ in range(config.n_layer))
        self.final_norm = norm_of(config) if config.final_norm else None
        self.tap_final_norm, self.tap_logits = Tap("final.norm"), Tap("logits")

    def run(
        self,
        x_BTC: Tensor,
        pos: Tensor,
        *,
        padding: Mask | None = None,
        cache: KVCache | Rows | None = None,
        memory: Memory | None = None,
        distances_BTT: Tensor | None = None,
    ) -> Tensor:
        """Vectors (B, T, C) at positions `pos` through all blocks and the final norm.

        padding: which keys are padding, or another document's: a mask that each layer's own is combined with.
        distances: steps between the nodes of each row's graph, for layers whose mask is `graph(n)`.
        """
        if self.native is not None and padding is None and memory is None and self.native.serves(cache):
            return self.tap_final_norm(self.native.run(x_BTC, cache))
        masks = self.masks if distances_BTT is None else [mask.on_graph(distances_BTT) for mask in self.masks]
        for layer, (block, mask) in enumerate(zip(self.blocks, masks, strict=True)):
            seen = mask if padding is None else padding if isinstance(mask, Full) else mask & padding
            x_BTC = block(x_BTC, pos, self.layer_positions(layer), seen, cache, layer, memory)
        return self.tap_final_norm(x_BTC if self.final_norm is None else self.final_norm(x_BTC))

    def layer_positions(self, layer: int) -> Positions:
        """What the queries and keys of a layer know of positions."""
        if self.no_positions is not None and not self.config.is_positioned(layer):
            return self.no_positions
        local = self.local_positions is not None and self.masks[layer].is_local
        return self.local_positions if local else self.positions  # type: ignore[return-value]

    def read_out(self, head: nn.Module, vectors: Tensor) -> Tensor:
        """Vectors (..., C) -> logits, scaled and capped by the configuration."""
        scale, cap = self.config.logit_scale, self.config.logit_softcap
        logits: Tensor = head(vectors if scale == 1 else vectors * scale)
        return self.tap_logits(logits if cap is None else cap * torch.tanh(logits / cap))


def positions_of(config: ModelConfig, *, causal: bool = True) -> Positions:
    """The positions that a configuration names, with their tables computed."""
    return config.build_positions(causal=causal)


def norm_of(config: ModelConfig) -> nn.Module:
    """One norm over channels."""
    return NORMS[config.norm](config.n_embd, eps=config.norm_eps, bias=config.bias)


def text_stem(config: ModelConfig) -> TextStem:
    """The stem of a decoder, or of an encoder of text."""
    return TextStem(
        vocab_size=config.vocab_size,
        n_embd=config.n_embd,
        n_gram=config.n_gram,
        n_gram_rows=config.n_gram_rows,
        n_segments=config.n_segments,
        scale=config.embedding_scale,
        norm=norm_of(config) if config.embedding_norm else None,
    )


def _block(config: ModelConfig, cross: bool) -> Block:
    norm = NORMS[config.norm]
    heads: dict[str, Any] = {
        "n_embd": config.n_embd,
        "bias": config.bias,
        "qkv_bias": config.qkv_bias,
        "out_bias": config.out_bias,
        "n_head": config.n_head,
        "n_kv_head": config.n_kv_head,
        "head_width": config.head_width,
        "qk_norm": config.qk_norm,
        "qk_norm_over": config.qk_norm_over,
        "norm_eps": config.norm_eps,
        "head_norm": norm if issubclass(norm, RMSNorm) else RMSNorm,
        "scale": config.attention_scale,
        "softcap": config.attention_softcap,
        "sinks": config.attention_sinks,
    }
    communicate = norm_of(config), Attention(**heads)
    compute = norm_of(config), _feedforward(config)
    parts = *communicate, *compute, *((norm_of(config), CrossAttention(**heads)) if cross else ())
    if config.norm_place == "sandwich":
        return SandwichBlock(*parts, after=[norm_of(config) for _ in parts[::2]])
    if config.parallel:
        return ParallelBlock(*parts)
    return {"pre": Block, "post": PostNormBlock, "output": OutputNormBlock}[config.norm_place](*parts)


def _feedforward(config: ModelConfig) -> nn.Module:
    sizes: dict[str, Any] = {
        "n_embd": config.n_embd,
        "n_hidden": config.n_hidden,
        "activation": config.activation,
        "bias": config.biases()[2],
    }

    def one() -> nn.Module:
        if config.feedforward == "clamped":
            return ClampedFeedForward(**sizes, limit=config.feedforward_limit)
        return (GatedFeedForward if config.feedforward == "gated" else FeedForward)(**sizes)

    if not config.n_expert:
        return one()
    return Experts(
        n_embd=config.n_embd,
        n_expert=config.n_expert,
        active=config.n_expert_active,
        make=one,
        shares_of=config.expert_shares,
        router_bias=config.router_bias,
    )
