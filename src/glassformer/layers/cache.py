"""The key-value cache: keys and values of past tokens, so that the next token costs one row and not a square."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from glassformer.errors import UsageError


class KVCache:
    """Keys and values of every layer for B sequences of equal length, in memory taken once.

        keys[layer], values[layer]   (B, K, capacity, D)   the first `length` positions are filled
        tokens                       (B, capacity)         their ids, for a stem that looks at the last few (n-grams)
        crossed[layer]               2 x (B, K, S, D)      keys and values of a memory, for cross-attention

    A model writes with `remember` and, in each layer, `append`, then calls `advance` once. `rewind` forgets the end
    (speculative decoding, /why), `reorder` picks rows (beam search), `fork` copies for another continuation of the same
    prompt.
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
        shape = (n_layer, batch_size, n_kv_head, capacity, head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.tokens = torch.zeros(batch_size, capacity, dtype=torch.int64, device=device)
        self.crossed: dict[int, tuple[Tensor, Tensor]] = {}
        self.length = 0

    @property
    def capacity(self) -> int:
        """How many positions fit."""
        return self.keys.shape[3]

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
        end = self._end(ids_BT.shape[1])
        self.tokens[:, self.length : end] = ids_BT
        return self.tokens[:, max(0, self.length - reach) : self.length]

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write T new positions of one layer; return all keys and values so far, (B, K, length + T, D) each.

        Raises:
            UsageError: the new positions do not fit.
        """
        end = self._end(k_BKTD.shape[2])
        self.keys[layer, :, :, self.length : end] = k_BKTD
        self.values[layer, :, :, self.length : end] = v_BKTD
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]

    def advance(self, n: int) -> None:
        """Count `n` new positions, after every layer has appended them."""
        self.length += n

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on."""
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; `rows` (B',) may repeat or drop rows.

        As many rows as before are changed in place, and only those that move: in a beam search many stay.
        """
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

    def fork(self, n: int = 1) -> KVCache:
        """A copy that has each row `n` times, so that n samples can continue one prefilled prompt."""
        twin = copy.copy(self)
        twin._take(torch.arange(len(self.tokens), device=self.tokens.device).repeat_interleave(n))
        return twin

    def _take(self, rows: Tensor) -> None:
        """Copies of these rows in place of all there are."""
        self.keys, self.values, self.tokens = self.keys[:, rows], self.values[:, rows], self.tokens[rows]
        self.crossed = {layer: (keys[rows], values[rows]) for layer, (keys, values) in self.crossed.items()}

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
        layers, batch, heads, capacity, width = self.keys.shape
        filled = "" if not capacity else "#" * round(20 * self.length / capacity)
        return (
            f"KVCache([{filled:.<20}] {self.length}/{capacity} positions, {batch} sequences, {layers} layers x "
            f"{heads} heads x {width}, {self.n_bytes / 2**20:.1f} MiB)"
        )
