"""The decoder: stem, blocks, head. Every GPT-like model here is this class with another configuration.

ids ──► embedding (+ position) ──► block ──► block ──► ... ──► final norm ──► head ──► logits
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from glassformer.errors import UsageError
from glassformer.layers import Documents, KVCache, Memory, RowCache, Rows
from glassformer.layers.attention import LEAST_DOCUMENT
from glassformer.models.config import ModelConfig
from glassformer.models.stems import TextStem
from glassformer.models.transformer import Transformer, text_stem


class OneRow(NamedTuple):
    """The tokens of a batch (B, T) that are of use, all in one row of N without padding.

    places_N: where they stand in B T. pos_N: their positions. documents_N: what they may see.
    """

    places_N: Tensor
    pos_N: Tensor
    documents_N: Tensor


def one_row(ids_BT: Tensor, documents_BT: Tensor | None, lengths_B: Tensor | None) -> OneRow | None:
    """The batch in one row, where that saves work: on a CPU, which takes products of any size and attends to documents
    one by one, if they are not short, and if there are several in a row or 1 in 20 tokens is of no use. None: as it is.
    """
    (B, T), device = ids_BT.shape, ids_BT.device
    if device.type != "cpu" or torch.compiler.is_compiling() or (documents_BT is None and lengths_B is None):
        return None
    used_BT = torch.ones(B, T, dtype=torch.bool) if lengths_B is None else torch.arange(T) < lengths_B[:, None]
    places_N = used_BT.flatten().nonzero().squeeze(1)
    N = len(places_N)
    if N == 0 or (documents_BT is None and 20 * N > 19 * B * T):
        return None
    documents_BT = torch.zeros_like(ids_BT) if documents_BT is None else documents_BT
    documents_BT = documents_BT + torch.arange(B)[:, None] * (documents_BT.max() - documents_BT.min() + 1)
    documents_N = documents_BT.flatten()[places_N]
    lengths = Documents(documents_N).lengths
    if lengths is None or LEAST_DOCUMENT * len(lengths) > N:
        return None
    return OneRow(places_N, places_N % T, documents_N)


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
        lengths_B: Tensor | None = None,
    ) -> Tensor:
        """Everything but the head: ids (B, T) -> normed vectors (B, T, C).

        documents_BT: the document of each token, where several are packed into a row: attention stays inside each.
        Positions do not restart. lengths_B: how many vectors of each row are of use. The others need not be computed,
        since none is read by those before it, and may be anything.
        """
        B, T = ids_BT.shape
        self._check_room(T, cache)
        plain = cache is None and memory is None and self.native is None and self.config.n_gram == 1
        if plain and not any(block.attention.listened_to for block in self.blocks):  # type: ignore[union-attr]
            row = one_row(ids_BT, documents_BT, lengths_B)
            if row is not None:
                x_1NC = self.embedding(ids_BT.flatten()[None, row.places_N], row.pos_N, self.positions)
                x_1NC = self.run(x_1NC, row.pos_N, padding=Documents(row.documents_N))
                zeros_PC = x_1NC.new_zeros(B * T, x_1NC.shape[-1])
                return zeros_PC.index_copy(0, row.places_N, x_1NC[0]).view(B, T, -1)
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
