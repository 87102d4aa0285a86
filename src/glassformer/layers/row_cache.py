"""A key-value cache for rows that come and go: each of its own length, in memory that is bounded.

    row 0  #########.......      a request that is far along
    row 1  ####............      one that has just begun
    row 2  ######..........      idle: done; kept for a request that begins with the same tokens

All rows lie in one tensor a layer, so that a step of decoding is one matrix product for all of them. Rows in use come
first; one that is done trades places with the last of these. Capacity is the same for all rows.
"""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor

from glassformer.errors import UsageError

GROWTH = 256  # positions: capacity goes in such steps, so that it seldom changes


class RowCache:
    """Keys and values of up to `max_rows` rows, of at most `max_positions` positions in all.

        keys[layer], values[layer]   (N, K, capacity, D)   row n is filled up to lengths[n]
        tokens                       (N, capacity)         their ids

    `rows(a, b)` gives a view that a model writes to as to a `KVCache`: of one row any number of tokens, of several rows
    one token each.
    """

    def __init__(
        self,
        *,
        n_layer: int,
        n_kv_head: int,
        head_width: int,
        vocab_size: int,
        block_size: int,
        max_rows: int,
        max_positions: int,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ):
        self.max_rows, self.max_positions = max_rows, max_positions
        self.nothing, self.longest = vocab_size, block_size
        shape = (n_layer, 0, n_kv_head, 0, head_width)
        self.keys = torch.zeros(shape, dtype=dtype, device=device)
        self.values = torch.zeros(shape, dtype=dtype, device=device)
        self.tokens = torch.zeros(0, 0, dtype=torch.int64, device=device)
        self.lengths: list[int] = []

    @property
    def capacity(self) -> int:
        """How many positions fit into each row."""
        return self.keys.shape[3]

    @property
    def n_rows(self) -> int:
        """How many rows there are, in use or idle."""
        return len(self.lengths)

    @property
    def n_bytes(self) -> int:
        """Memory held, in bytes."""
        return 2 * self.keys.numel() * self.keys.element_size()

    @property
    def max_bytes(self) -> int:
        """The most that it will ever hold."""
        layers, _, heads, _, width = self.keys.shape
        return 2 * layers * heads * width * self.max_positions * self.keys.element_size()

    def fits(self, n_rows: int, capacity: int) -> bool:
        """Whether so many rows of so many positions are within the bounds."""
        return n_rows <= self.max_rows and n_rows * self._rounded(capacity) <= self.max_positions

    def resize(self, n_rows: int, capacity: int) -> None:
        """Grow or shrink to so many rows of at least so many positions; what fits is kept.

        Raises:
            UsageError: that is beyond the bounds.
        """
        if not self.fits(n_rows, capacity):
            raise UsageError(f"a cache of {self.max_positions:,} positions cannot hold {n_rows} rows of {capacity:,}")
        capacity = self._rounded(capacity)
        if n_rows == self.n_rows and capacity == self.capacity:
            return
        rows, used = min(n_rows, self.n_rows), min(capacity, max(self.lengths, default=0))
        layers, _, heads, _, width = self.keys.shape
        keys, values = (held.new_zeros(layers, n_rows, heads, capacity, width) for held in (self.keys, self.values))
        tokens = self.tokens.new_zeros(n_rows, capacity)
        # nothing changes before all memory is there: a cache that could not grow stays as it was
        keys[:, :rows, :, :used], values[:, :rows, :, :used] = (
            self.keys[:, :rows, :, :used],
            self.values[:, :rows, :, :used],
        )
        tokens[:rows, :used] = self.tokens[:rows, :used]
        self.keys, self.values, self.tokens = keys, values, tokens
        self.lengths = [*(min(length, capacity) for length in self.lengths[:rows]), *[0] * (n_rows - rows)]

    def swap(self, a: int, b: int) -> None:
        """Let two rows trade places."""
        if a == b:
            return
        used = slice(max(self.lengths[a], self.lengths[b]))
        both = self.keys, self.values
        for held, first in zip(both, [held[:, a, :, used].clone() for held in both], strict=True):
            held[:, a, :, used] = held[:, b, :, used]
            held[:, b, :, used] = first
        self.tokens[[a, b]] = self.tokens[[b, a]]
        self.lengths[a], self.lengths[b] = self.lengths[b], self.lengths[a]

    def copy(self, source: int, target: int, length: int) -> None:
        """Let a row hold the first `length` positions of another one."""
        used = slice(length)
        self.lengths[target] = 0  # what it held is lost, also if this fails half way
        for held in (self.keys, self.values):
            held[:, target, :, used] = held[:, source, :, used]
        self.tokens[target, used] = self.tokens[source, used]
        self.lengths[target] = length

    def rewind(self, row: int, length: int) -> None:
        """Forget what a row holds from position `length` on."""
        self.lengths[row] = min(length, self.lengths[row])

    def rows(self, start: int, stop: int) -> Rows:
        """A view of some rows, for one call of a model."""
        return Rows(self, start, stop)

    def _rounded(self, capacity: int) -> int:
        return max(capacity, min(-(-capacity // GROWTH) * GROWTH, self.longest))

    def __repr__(self) -> str:
        filled = sum(self.lengths)
        return (
            f"RowCache({self.n_rows} rows, {filled:,} positions filled, {self.n_bytes / 2**20:.1f} of at most "
            f"{self.max_bytes / 2**20:.1f} MiB)"
        )


class Rows:
    """Some rows of a `RowCache`, as a model sees a cache. One row takes any number of tokens, several one each."""

    def __init__(self, cache: RowCache, start: int, stop: int):
        self.cache, self.start, self.stop = cache, start, stop
        self.crossed: dict[int, tuple[Tensor, Tensor]] = {}
        self.lengths = cache.lengths[start:stop]
        self.length = max(self.lengths)

    @cached_property
    def _pos_B(self) -> Tensor:
        return torch.tensor(self.lengths, device=self.cache.tokens.device)

    @cached_property
    def _rows_B(self) -> Tensor:
        return torch.arange(self.start, self.stop, device=self.cache.tokens.device)

    def next_positions(self, n: int) -> Tensor:
        """Where the next n tokens stand: (n,) for one row, (B, 1) for several."""
        if self.stop - self.start == 1:
            return torch.arange(self.length, self.length + n, device=self.cache.tokens.device)
        return self._pos_B[:, None]

    def remember(self, ids_BT: Tensor, reach: int) -> Tensor:
        """Write new tokens; return the `reach` tokens before them, (B, reach), where a row has fewer the id after the
        last one, which stands for nothing."""
        tokens = self.cache.tokens
        if self.stop - self.start == 1:
            tokens[self.start, self.length : self.length + ids_BT.shape[1]] = ids_BT[0]
            return tokens[self.start : self.stop, max(0, self.length - reach) : self.length]
        tokens[self._rows_B, self._pos_B] = ids_BT[:, 0]
        if not reach:
            return tokens[self.start : self.stop, :0]
        at = self._pos_B[:, None] - torch.arange(reach, 0, -1, device=tokens.device)  # (B, reach)
        return tokens[self._rows_B[:, None], at.clamp_min(0)].masked_fill(at < 0, self.cache.nothing)

    def append(self, layer: int, k_BKTD: Tensor, v_BKTD: Tensor) -> tuple[Tensor, Tensor]:
        """Write the new positions of one layer; return all keys and values, (B, K, S, D) each. What is beyond a
        row's own length is some other number, and for the pattern to leave out."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        end = self.length + k_BKTD.shape[2]
        if self.stop - self.start == 1:
            keys[self.start, :, self.length : end] = k_BKTD[0]
            values[self.start, :, self.length : end] = v_BKTD[0]
        else:
            keys[self._rows_B, :, self._pos_B] = k_BKTD[:, :, 0]
            values[self._rows_B, :, self._pos_B] = v_BKTD[:, :, 0]
        return keys[self.start : self.stop, :, :end], values[self.start : self.stop, :, :end]

    def advance(self, n: int) -> None:
        """Count `n` new positions in every row, after all layers have appended them."""
        for row in range(self.start, self.stop):
            self.cache.lengths[row] += n
