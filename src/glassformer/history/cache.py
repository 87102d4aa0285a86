"""What the models of this package remember between two calls, with the methods of `glassformer.layers.KVCache`."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor

from glassformer.errors import UsageError

Own = TypeVar("Own", bound="TokenCache")


class TokenCache:
    """The tokens so far of B sequences of equal length: all that a model with a window of fixed width needs.

        tokens   (B, capacity) int64; the first `length` are there

    A model calls `remember`, then `advance`. `rewind` forgets the end, `reorder` picks rows, `fork` copies.
    """

    def __init__(self, batch_size: int, capacity: int, device: torch.device | str = "cpu"):
        self.tokens = torch.zeros(batch_size, capacity, dtype=torch.int64, device=device)
        self.length = 0

    @property
    def capacity(self) -> int:
        """How many tokens fit."""
        return self.tokens.shape[1]

    def remember(self, ids_BT: Tensor, reach: int) -> Tensor:
        """Write T new tokens; return them with the up to `reach` tokens before, (B, min(reach, length) + T).

        Raises:
            UsageError: the new tokens do not fit.
        """
        end = self.length + ids_BT.shape[1]
        if end > self.capacity:
            raise UsageError(
                f"the cache holds {self.capacity} positions and {end} are asked for; rewind it or make a larger one"
            )
        self.tokens[:, self.length : end] = ids_BT
        return self.tokens[:, max(0, self.length - reach) : end]

    def advance(self, n: int) -> None:
        """Count `n` new tokens, after the model has read them."""
        self.length += n

    def rewind(self, length: int) -> None:
        """Forget everything from position `length` on."""
        if not 0 <= length <= self.length:
            raise UsageError(f"cannot rewind a cache of {self.length} positions to {length}")
        self.length = length

    def reorder(self, rows: Tensor) -> None:
        """Row i becomes what row `rows[i]` was; `rows` (B',) may repeat or drop rows."""
        self.tokens = self.tokens[rows]

    def fork(self: Own, n: int = 1) -> Own:
        """A copy in which each row stands `n` times."""
        twin = object.__new__(type(self))
        twin.tokens, twin.length = self.tokens, self.length
        twin.reorder(torch.arange(len(self.tokens), device=self.tokens.device).repeat_interleave(n))
        return twin

    def __len__(self) -> int:
        return self.length

    def __bool__(self) -> bool:
        return True  # an empty cache is still a cache

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.length}/{self.capacity} positions, {len(self.tokens)} sequences)"


class RecurrentCache(TokenCache):
    """The tokens and, of a recurrent network, the state after them.

        state    a tuple of (L, B, H): h of a GRU or RNN, h and c of an LSTM; None: at the start
        read     how many tokens the state has seen

    Whatever its length, a text is one state: that is the point of recurrence, and its price. A state cannot be taken
    back by a token, so after `rewind` the tokens that remain are read again at the next call.
    """

    state: tuple[Tensor, ...] | None = None
    read: int = 0

    def unread(self, ids_BT: Tensor) -> Tensor:
        """Write T new tokens; return all that the state has not seen, the T new ones last."""
        return self.remember(ids_BT, reach=self.length - self.read)

    def keep(self, state: tuple[Tensor, ...], n: int) -> None:
        """The state after n more tokens than before; everything has been read."""
        self.state = state
        self.advance(n)
        self.read = self.length

    def rewind(self, length: int) -> None:
        super().rewind(length)
        if length < self.read:
            self.state, self.read = None, 0

    def reorder(self, rows: Tensor) -> None:
        super().reorder(rows)
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)

    def fork(self, n: int = 1) -> RecurrentCache:
        twin = super().fork(n)
        rows = torch.arange(len(self.tokens), device=self.tokens.device).repeat_interleave(n)
        twin.read = self.read
        twin.state = None if self.state is None else tuple(part[:, rows] for part in self.state)
        return twin
