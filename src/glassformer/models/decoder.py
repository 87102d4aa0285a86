"""The decoder: stem, blocks, head. Every GPT-like model in this house is this class with another configuration.

ids ──► embedding (+ position) ──► block ──► block ──► ... ──► final norm ──► head ──► logits
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError, did_you_mean
from glassformer.layers import (
    NORMS,
    POSITIONS,
    Attention,
    Block,
    Causal,
    FeedForward,
    GatedFeedForward,
    KVCache,
    Pattern,
    Positions,
)
from glassformer.modalities import TextStem
from glassformer.models.config import ModelConfig
from glassformer.models.init import INITS
from glassformer.taps import Tap


class Decoder(nn.Module):
    """A causal Transformer: ids (B, T) -> logits (B, T, V), where logits[:, t] are about the token at t + 1.

    It knows no loss and no optimizer. `dropout` is a matter of training and so not part of the configuration:
    `set_dropout` changes it on a built model.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        dropout: float = 0.0,
        attention_dropout: float | None = None,
        token_dropout: float = 0.0,
    ):
        super().__init__()
        self.config = config
        self.pattern: Pattern = Causal()
        self.embedding = TextStem(
            vocab_size=config.vocab_size,
            n_embd=config.n_embd,
            n_gram=config.n_gram,
            n_gram_rows=config.n_gram_rows,
        )
        self.positions = positions_of(config)
        self.blocks = nn.ModuleList(_block(config) for _ in range(config.n_layer))
        self.final_norm = _norm(config)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.tie_head()
        self.tap_final_norm, self.tap_logits = Tap("final.norm"), Tap("logits")
        self.init_weights()
        self.set_dropout(dropout, attention_dropout, token_dropout)

    def forward(self, ids_BT: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """(B, T) -> (B, T, V). With a cache, `ids` are the tokens after those it holds, and it is extended.

        Raises:
            UsageError: there are more tokens than `block_size` positions.
        """
        return self.logits(self.hidden(ids_BT, cache=cache))

    def hidden(self, ids_BT: Tensor, *, cache: KVCache | None = None) -> Tensor:
        """Everything but the head: ids (B, T) -> normed vectors (B, T, C)."""
        B, T = ids_BT.shape
        start = 0 if cache is None else cache.length
        if start + T > self.config.block_size:
            raise UsageError(
                f"{start + T} tokens do not fit into block_size={self.config.block_size}; "
                "shorten the text or let generation slide its window"
            )
        pos = torch.arange(start, start + T, device=ids_BT.device)
        before_BP = None if cache is None else cache.remember(ids_BT, reach=self.config.n_gram - 1)
        x_BTC = self.embedding(ids_BT, pos, self.positions, before_BP)
        for layer, block in enumerate(self.blocks):
            x_BTC = block(x_BTC, pos, self.positions, self.pattern, cache, layer)
        if cache is not None:
            cache.advance(T)
        return self.tap_final_norm(self.final_norm(x_BTC))

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """Ask the vectors for the next token: (B, T, C) -> (B, T, V)."""
        return self.tap_logits(self.head(hidden_BTC))

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache that fits this model, in its number format and on its device."""
        weight, config = self.embedding.token.weight, self.config
        return KVCache(
            n_layer=config.n_layer,
            batch_size=batch_size,
            n_kv_head=config.n_kv_head,
            head_width=config.head_width,
            capacity=min(capacity or config.block_size, config.block_size),
            dtype=weight.dtype,
            device=weight.device,
        )

    def set_dropout(self, p: float, attention: float | None = None, tokens: float = 0.0) -> None:
        """Set the dropout rate everywhere: embedding, attention weights, both outputs of each block.

        attention: another rate for the attention weights. On a CPU the fused kernel knows only 0, and the written-out
        path takes three times as long at 256 tokens, for no gain in loss (docs/experiments.md).
        tokens: the share of tokens that are read as another one (`TextStem`).
        """
        for module in self.modules():
            if isinstance(module, (TextStem, Attention, FeedForward, GatedFeedForward)):
                module.dropout = p
            if isinstance(module, TextStem):
                module.token_dropout = tokens
            if isinstance(module, Attention):
                module.weight_dropout = p if attention is None else attention

    def tie_head(self) -> None:
        """Let the head read with the same table that the embedding writes, where the configuration says so."""
        if self.config.tied_head:
            self.head.weight = self.embedding.token.weight

    def init_weights(self, kind: str = "gpt2") -> None:
        """Draw all weights anew, from the global generator, in one of the ways of `INITS`.

        Raises:
            UsageError: there is no such way.
        """
        if kind not in INITS:
            raise UsageError(f"init={kind!r} is unknown; {did_you_mean(kind, INITS)}")
        INITS[kind](self, self.config.n_layer)

    def parameter_count(self) -> int:
        """Number of trainable numbers; a tied head counts once."""
        return sum(parameter.numel() for parameter in self.parameters())

    def extra_repr(self) -> str:
        return f"{self.parameter_count():,} parameters"


def positions_of(config: ModelConfig) -> Positions:
    """The positions that a configuration names, with their tables computed."""
    return POSITIONS[config.positions](
        n_embd=config.n_embd, head_width=config.head_width, block_size=config.block_size, base=config.rotary_base
    )


def _norm(config: ModelConfig) -> nn.Module:
    return NORMS[config.norm](config.n_embd, eps=config.norm_eps, bias=config.bias)


def _block(config: ModelConfig) -> Block:
    feedforward = GatedFeedForward if config.feedforward == "gated" else FeedForward
    shape: dict[str, Any] = {"n_embd": config.n_embd, "bias": config.bias}
    return Block(
        _norm(config),
        Attention(
            n_head=config.n_head,
            n_kv_head=config.n_kv_head,
            head_width=config.head_width,
            qk_norm=config.qk_norm,
            norm_eps=config.norm_eps,
            **shape,
        ),
        _norm(config),
        feedforward(n_hidden=config.n_hidden, activation=config.activation, **shape),
    )
