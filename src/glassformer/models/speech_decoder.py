"""Text to speech: an encoder reads characters, and a decoder writes speech, a few frames a step, all bands at once.

    voice, characters ──► encoder ──► vectors (B, S, C)
                                         │ cross-attention
    steps so far ──stem──► decoder ──────┴──┬─► a level for each band of each frame of the next step
                                            └─► whether speech ends with it

Text and speech run at nearly the same pace, and cross-attention, which knows no positions, must follow it: both are
marked with sines of the time in steps, that of a character by the mean pace (the "position rate" of Ping et al. 2017,
https://arxiv.org/abs/1710.07654, sect. 3.5).
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import KVCache, Memory
from glassformer.layers.positions import SinusoidalPositions
from glassformer.models.config import ModelConfig
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_config import EncoderConfig
from glassformer.models.stems import FrameLevelStem
from glassformer.models.transformer import Transformer


class SpeechDecoderConfig(ModelConfig):
    """A decoder of speech and its encoder of text, of one shape; `block_size` counts steps of speech, `vocab_size`
    characters and voices."""

    n_encoder_layer: int = Field(ge=1, le=1000)
    text_block_size: int = Field(ge=1, le=1_000_000)
    """characters of the longest text, and its voice"""
    n_bands: int = Field(ge=1, le=512)
    """of a frame"""
    n_levels: int = Field(ge=2, le=256)
    """of a band"""
    frames_per_step: int = Field(ge=1, le=64)
    steps_per_character: float = Field(gt=0, le=1000)
    """mean pace of speech"""

    @property
    def reads(self) -> str:
        return "characters"

    def encoder(self) -> EncoderConfig:
        """The shape of the encoder."""
        shared = {name: getattr(self, name) for name in ModelConfig.model_fields}
        own = {"n_layer": self.n_encoder_layer, "block_size": self.text_block_size, "patterns": None}
        return EncoderConfig.make(**{**shared, **own})


class SpeechDecoder(Transformer):
    """Characters (B, S) and the steps before each one (B, T, N) -> logits of levels (B, T, N, L) and of the end (B, T).

    N = frames of a step x bands, frame by frame. The levels of a step are independent of each other, given what was
    before.
    """

    answers = frozenset({"speech"})
    config: SpeechDecoderConfig
    embedding: FrameLevelStem

    def __init__(self, config: SpeechDecoderConfig):
        super().__init__()
        N, L, C = config.frames_per_step * config.n_bands, config.n_levels, config.n_embd
        if config.parallel:
            raise UsageError("parallel=true does not fit a decoder with cross-attention; use parallel=false")
        self._build(config, FrameLevelStem(n_values=N, n_levels=L, n_embd=C), causal=True, cross=True)
        self.encoder = Encoder(config.encoder())
        self.time = SinusoidalPositions(n_embd=C, block_size=0)
        self.head = nn.Linear(C, N * L)
        self.end_head = nn.Linear(C, 1)
        self.init_weights()

    def init_weights(self, kind: str = "gpt2") -> None:
        super().init_weights(kind)
        self.embedding.init_levels()

    def set_dropout(self, p: float, attention: float | None = None, tokens: float = 0.0) -> None:
        """As for all; `tokens` is the share of steps that are not read."""
        super().set_dropout(p, attention)
        self.embedding.step_dropout = tokens

    def forward(self, ids_BS: Tensor, lengths_B: Tensor, levels_BTN: Tensor) -> tuple[Tensor, Tensor]:
        """levels: of the step before each; what stands in the first one is not looked at.

        Raises:
            UsageError: there are more characters or steps than fit.
        """
        return self.decode(levels_BTN, self.encode(ids_BS, lengths_B))

    def encode(self, ids_BS: Tensor, lengths_B: Tensor) -> Memory:
        """Read the text once."""
        x_BSC = self.encoder(ids_BS, lengths_B)
        steps_S = torch.arange(ids_BS.shape[1], device=ids_BS.device) * self.config.steps_per_character
        return Memory(self.time.add(x_BSC, steps_S), lengths_B)

    def decode(self, levels_BTN: Tensor, memory: Memory, *, cache: KVCache | None = None) -> tuple[Tensor, Tensor]:
        """Logits (B, T, N, L) and (B, T). With a cache, the steps are those after what it holds."""
        B, T, N = levels_BTN.shape
        begin = 0 if cache is None else cache.length
        if begin + T > self.config.block_size:
            raise UsageError(
                f"{begin + T} steps do not fit into block_size={self.config.block_size}; shorten the sentence"
            )
        pos = torch.arange(begin, begin + T, device=levels_BTN.device)
        x_BTC = self.time.add(self.embedding(levels_BTN, pos, self.positions), pos)
        x_BTC = self.run(x_BTC, pos, cache=cache, memory=memory)
        if cache is not None:
            cache.advance(T)
        logits_BTNL = self.read_out(self.head, x_BTC).view(B, T, N, self.config.n_levels)
        return logits_BTNL, self.end_head(x_BTC).squeeze(-1)

    def new_cache(self, batch_size: int = 1) -> KVCache:
        """An empty cache for a whole sentence."""
        weight, config = self.head.weight, self.config
        sizes: dict[str, Any] = {"n_kv_head": config.n_kv_head, "head_width": config.head_width}
        return KVCache(
            n_layer=config.n_layer,
            batch_size=batch_size,
            capacity=config.block_size,
            dtype=weight.dtype,
            device=weight.device,
            **sizes,
        )
