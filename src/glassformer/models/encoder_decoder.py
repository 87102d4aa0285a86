"""Encoder and decoder: one reads, the other writes and asks what was read, by cross-attention, at every layer.

    source ──► encoder ──► memory (B, S, C)
                              │ keys, values
    target so far ──► decoder ┴─► logits about the next token of the target

Vaswani et al. 2017, https://arxiv.org/abs/1706.03762, figure 1. With other configurations it is a T5, a BART, a Marian
translator, a Whisper.
"""

from __future__ import annotations

from torch import Tensor

from glassformer.layers import KVCache, Memory
from glassformer.models.decoder import Decoder
from glassformer.models.encoder import Encoder
from glassformer.models.encoder_config import EncoderDecoderConfig
from glassformer.models.transformer import Model


class EncoderDecoder(Model):
    """Source (B, S) and the target so far (B, T) -> logits (B, T, V) about the next token.

    The target that it reads begins with `config.start_token`; the one that it predicts ends with
    `config.end_token`.
    """

    answers = frozenset({"target"})

    def __init__(self, config: EncoderDecoderConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config.encoder)
        self.decoder = Decoder(config.decoder, cross=True)
        self.tie_head()
        self.init_weights()

    def forward(self, source: Tensor, target_BT: Tensor, source_lengths_B: Tensor | None = None) -> Tensor:
        """(B, S), (B, T) -> (B, T, V). The source may also be images or frames, as `Encoder` takes them."""
        return self.decode(target_BT, self.encode(source, source_lengths_B))

    def encode(self, source: Tensor, lengths_B: Tensor | None = None) -> Memory:
        """Read the source once; the memory serves as many calls of `decode` as one likes."""
        return Memory(self.encoder(source, lengths_B), lengths_B)

    def decode(self, target_BT: Tensor, memory: Memory, *, cache: KVCache | None = None) -> Tensor:
        """(B, T) -> (B, T, V). With a cache, `target` are the tokens after those it holds."""
        return self.decoder.logits(self.decoder.hidden(target_BT, cache=cache, memory=memory))

    def hidden(self, source: Tensor, target_BT: Tensor, source_lengths_B: Tensor | None = None) -> Tensor:
        """Everything but the head: the decoder's vectors (B, T, C)."""
        return self.decoder.hidden(target_BT, memory=self.encode(source, source_lengths_B))

    def new_cache(self, batch_size: int = 1, capacity: int | None = None) -> KVCache:
        """An empty cache for `decode`; it also keeps keys and values of the memory that it first meets."""
        return self.decoder.new_cache(batch_size, capacity)

    def tie_head(self) -> None:
        """Let what is one table be one table."""
        if self.config.shared_embedding:
            self.encoder.embedding.token.weight = self.decoder.embedding.token.weight
        self.decoder.tie_head()
        self.encoder.tie_head()

    def set_dropout(self, p: float, attention: float | None = None, tokens: float = 0.0) -> None:
        """As for all; `tokens` holds for what the decoder is given, not for the source."""
        super().set_dropout(p, attention, tokens)
        if tokens:
            self.encoder.embedding.token_dropout = 0.0
