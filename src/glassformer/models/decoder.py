"""The decoder: stem, blocks, head. Every GPT-like model here is this class with another configuration.

ids ──► embedding (+ position) ──► block ──► block ──► ... ──► final norm ──► head ──► logits
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import Documents, KVCache, Memory, RowCache, Rows
from glassformer.models.config import ModelConfig
from glassformer.models.stems import TextStem
from glassformer.models.transformer import Transformer, text_stem


class Decoder(Transformer):
    """A causal Transformer: ids (B, T) -> logits (B, T, V), where logits[:, t] are about the token at t + 1.

    It knows no loss and no optimizer. With `cross` each block also listens to a memory, which every call then needs
    (`EncoderDecoder` gives it).
    """

    answers = frozenset({"next_token"})
    has_native_form = True
    embedding: TextStem

    def __init__(
        self,
        config: ModelConfig,
        *,
        dropout: float = 0.0,
        attention_dropout: float | None = None,
        token_dropout: float = 0.0,
        cross: bool = False,
    ):
        super().__init__()
        self._build(config, text_stem(config), causal=True, cross=cross)
        self.head = nn.Linear(config.n_embd, config.vocab_size, bias=config.head_bias)
        self.tie_head()
        self.init_weights()
        self.set_dropout(dropout, attention_dropout, token_dropout)

    def forward(self, ids_BT: Tensor, *, cache: KVCache | Rows | None = None) -> Tensor:
        """(B, T) -> (B, T, V). With a cache, `ids` are the tokens after those it holds, and it is extended.

        Raises:
            UsageError: there are more tokens than `block_size` positions.
        """
        if self.native is not None and not self.training and self.native.serves(cache, whole=True):
            self._check_room(ids_BT.shape[1], cache)
            return self.native.logits(ids_BT, cache)
        return self.logits(self.hidden(ids_BT, cache=cache))

    def hidden(
        self,
        ids_BT: Tensor,
        *,
        cache: KVCache | Rows | None = None,
        memory: Memory | None = None,
        documents_BT: Tensor | None = None,
    ) -> Tensor:
        """Everything but the head: ids (B, T) -> normed vectors (B, T, C).

        documents_BT: the document of each token, where several are packed into a row: attention stays inside each.
        Positions do not restart.
        """
        B, T = ids_BT.shape
        self._check_room(T, cache)
        pos = torch.arange(T, device=ids_BT.device) if cache is None else cache.next_positions(T)
        before_BP = None if cache is None else cache.remember(ids_BT, reach=self.config.n_gram - 1)
        x_BTC = self.embedding(ids_BT, pos, self.positions, before_BP)
        packed = None if documents_BT is None else Documents(documents_BT)
        x_BTC = self.run(x_BTC, pos, padding=packed, cache=cache, memory=memory)
        if cache is not None:
            cache.advance(T)
        return x_BTC

    def _check_room(self, n: int, cache: KVCache | Rows | None) -> None:
        total = n if cache is None else cache.length + n
        if total > self.config.block_size:
            raise UsageError(
                f"{total} tokens do not fit into block_size={self.config.block_size}; "
                "shorten the text or let generation slide its window"
            )

    def logits(self, hidden_BTC: Tensor) -> Tensor:
        """Ask the vectors for the next token: (B, T, C) -> (B, T, V)."""
        return self.read_out(self.head, hidden_BTC)

    @property
    def head_is_plain(self) -> bool:
        """Whether logits are one matrix product and nothing else, so that a loss may compute them piece by piece."""
        return type(self.head) is nn.Linear and self.config.logit_scale == 1 and self.config.logit_softcap is None

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

    def new_row_cache(self, max_rows: int, max_positions: int) -> RowCache:
        """An empty cache for rows that come and go, of at most so many positions in all."""
        weight, config = self.embedding.token.weight, self.config
        return RowCache(
            n_layer=config.n_layer,
            n_kv_head=config.n_kv_head,
            head_width=config.head_width,
            vocab_size=config.vocab_size,
            block_size=config.block_size,
            max_rows=max_rows,
            max_positions=max_positions,
            dtype=weight.dtype,
            device=weight.device,
        )

    def tie_head(self) -> None:
        """Share the embedding's table with the head, if the configuration ties them."""
        if self.config.tied_head:
            self.head.weight = self.embedding.token.weight
