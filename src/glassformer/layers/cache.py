"""Caches: the tokens so far, and their keys and values, so that the next token costs one row and not a square."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from glassformer.errors import UsageError

if TYPE_CHECKING:
    from typing_extensions import Self


class TokenCache:
    """The tokens so far of B sequences of equal length: all that a model with a window of fixed width needs.

        tokens   (B, capacity) int64; the first `length` are there

    A model calls `remember`, then `advance`. `rewind` forgets the end (speculative decoding, /why), `reorder` picks
    rows (beam search), `fork` copies for another continuation of the same prompt.
    """

    def __init__(self, batch_size: int, capacity: int, device: torch.device | str = "cpu"):
        self.tokens = torch.zeros(batch_size, capacity, dtype=torch.int64, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """How many positions fit."""
        return self.tokens.shape[1]

    def remember(self, ids_BT: Tensor, reach: int) -> Tensor:
        """Write T new tokens; return them with the up to `reach` tokens before, (B, min(reach, length) + T).

        Raises:
            UsageError: the new tokens do not fit.
        """
        end = self._end(ids_BT.shape[1])
        self.tokens[:, self.length : end] = ids_BT
        return self.tokens[:, max(0, self.length - reach) : end]

    def advance(self, n: int) -> None:
        """Count `n` new tokens, after every layer of the model has read them."""
        self.length += n

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on."""
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; `rows` (B',) may repeat or drop rows."""
        self._take(rows)

    def fork(self, n: int = 1) -> Self:
        """A copy in which each row stands `n` times, so that n samples can continue one prefilled prompt."""
        twin = copy.copy(self)
        twin._take(torch.arange(len(self.tokens), device=self.tokens.device).repeat_interleave(n))
        return twin

    def _take(self, rows: Tensor) -> None:
        """Copies of these rows in place of all there are."""
        self.tokens = self.tokens[rows]

    def _end(self, n: int) -> int:
        end = self.length + n
        if end > self.capacity:
            raise UsageError(
                f"the cache holds {self.capacity} positions and {end} are asked for; rewind it or make a larger one"
            )
        return end

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True  # an empty cache is still a cache: `if cache` must not take it for none

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.length}/{self.capacity} positions, {len(self.tokens)} sequences)"


class KVCache(TokenCache):
    """Keys and values of every layer for B sequences of equal length, in memory taken once.

        keys[layer], values[layer]   (B, K, capacity, D)   the first `length` positions are filled
        tokens                       (B, capacity)         their ids, for a stem that looks at the last few (n-grams)
        crossed[layer]               2 x (B, K, S, D)      keys and values of a memory, for cross-attention

    A model writes with `remember` and, in each layer, `append`, then calls `advance` once.
    """

    def __init__(
        self,
        *,
        n_layer: int,
        batch_size: int,
        n_kv_head: int,
        head_width: int,
        capacity: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        super().__init__(batch_size, capacity, device)
        shape = (n_layer, batch_size, n_kv_head, capacity, head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.crossed: dict[int, tuple[Tensor, Tensor]] = {}

    @property
    def n_bytes(self) -> int:
        """Memory held, in bytes."""
        crossed = sum(2 * keys.numel() for keys, _ in self.crossed.values())
        return (2 * self.keys.numel() + crossed) * self.keys.element_size()

    def next_positions(self, n: int) -> Tensor:
        """Where the next n tokens stand, (n,)."""
        return torch.arange(self.length, self.length + n, device=self.tokens.device)

    def remember(self, ids_BT: Tensor, reach: int) -> Tensor:
        """Write T new tokens; return the up to `reach` tokens before them, (B, min(reach, length)).

        Raises:
            UsageError: the new tokens do not fit.
        """
        return super().remember(ids_BT, reach)[:, : -ids_BT.shape[1]]

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new positions of one layer; return all keys and values so far, (B, K, length + T, D) each.

        Raises:
            UsageError: the new positions do not fit.
        """
        end = self._end(k_BKTD.shape[2])
        self.keys[layer, :, :, self.length : end] = k_BKTD
        self.values[layer, :, :, self.length : end] = v_BKTD
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def reorder(self, rows: Tensor) -> None:
        """As many rows as before are changed in place, and only those that move: in a beam search many stay."""
        if len(rows) != len(self.tokens):
            self._take(rows)
            return
        moved = (rows != torch.arange(len(rows), device=rows.device)).nonzero().squeeze(1)
        if not len(moved):
            return
        come_from, filled = rows[moved], slice(self.length)
        for held in (self.keys, self.values):
            held[:, moved, :, filled] = held[:, come_from, :, filled]
        for held in (self.tokens, *(part for parts in self.crossed.values() for part in parts)):
            held[moved] = held[come_from]

    def _take(self, rows: Tensor) -> None:
        super()._take(rows)
        self.keys, self.values = self.keys[:, rows], self.values[:, rows]
        self.crossed = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.crossed.items()}

    def __repr__(self) -> str:
        layers, batch, heads, capacity, width = self.keys.shape
        filled = "" if not capacity else "#" * round(20 * self.length / capacity)
        return (
            f"KVCache([{filled:.<20}] {self.length}/{capacity} positions, {batch} sequences, {layers} layers x "
            f"{heads} heads x {width}, {self.n_bytes / 2**20:.1f} MiB)"
        )
