"""What recurrent models remember between two calls, with the methods of `glassformer.layers.KVCache`."""

from __future__ import annotations

from torch import Tensor

from glassformer.layers.cache import TokenCache

__all__ = ["RecurrentCache", "TokenCache"]


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

    def _take(self, rows: Tensor) -> None:
        super()._take(rows)
        if self.state is not None:
            self.state = tuple(part[:, rows] for part in self.state)
