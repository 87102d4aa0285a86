"""Logits for the next token, for as long as one likes: with a cache, without, and beyond block_size.

A model has `block_size` positions. When they are full there are two ways on:

    half    keep the last half, read it anew, go on with room for another half: one prefill every block_size/2 tokens
    exact   slide by one: the lecture's crop to the last block_size tokens, which no cache can follow

Both can run with and without a cache ("exact" then only uses it until the positions are full) and give the same
tokens; the path without is the readable twin.
"""

from __future__ import annotations

import torch
from torch import Tensor

from glassformer.errors import UsageError
from glassformer.layers import KVCache
from glassformer.models import Decoder

WINDOWS = ("half", "exact")


def check_window(window: str) -> None:
    """Raises `UsageError` for a window that is not one of `WINDOWS`."""
    if window not in WINDOWS:
        raise UsageError(f"window={window!r} is unknown; use half (fast) or exact (slides by one)")


class Context:
    """The tokens so far of B rows of equal length, and what the model says comes next.

    `next_logits()` gives (B, V), read in eval mode (the model's own mode is put back); `append(ids_B)` goes on by one
    token a row; `keep(rows)` drops finished rows. forget: let go of tokens that the model does not see any more.
    """

    def __init__(
        self, model: Decoder, ids_BT: Tensor, *, window: str = "half", use_cache: bool = True, forget: bool = False
    ):
        check_window(window)
        self.forget = forget
        self.model, self.window, self.block_size = model, window, model.config.block_size
        self.ids_BT = ids_BT
        self.start = max(0, ids_BT.shape[1] - self.block_size)  # the first token that the model sees
        self.cache: KVCache | None = model.new_cache(ids_BT.shape[0]) if use_cache else None

    def next_logits(self) -> Tensor:
        """(B, V) logits about the token after the last one."""
        self._slide()
        seen_BT = self.ids_BT[:, self.start :]
        if self.cache is not None:
            seen_BT = seen_BT[:, self.cache.length :]
        was_training = self.model.training  # a training loop samples in between, and dropout has no place in a sample
        if was_training:
            self.model.eval()
        try:
            hidden_BTC = self.model.hidden(seen_BT, cache=self.cache)
            return self.model.logits(hidden_BTC[:, -1:]).squeeze(1)
        finally:
            if was_training:
                self.model.train()

    def append(self, ids_B: Tensor) -> None:
        self.ids_BT = torch.cat((self.ids_BT, ids_B[:, None].to(self.ids_BT.device)), dim=1)

    def fork(self, n: int) -> None:
        """Let each row stand n times: n samples go on from one prompt that was read once."""
        self.ids_BT = self.ids_BT.repeat_interleave(n, dim=0)
        if self.cache is not None:
            self.cache = self.cache.fork(n)

    def keep(self, rows: list[int]) -> None:
        index = torch.tensor(rows, device=self.ids_BT.device)
        self.ids_BT = self.ids_BT[index]
        if self.cache is not None:
            self.cache.reorder(index)

    def _slide(self) -> None:
        overflow = self.ids_BT.shape[1] - self.start - self.block_size
        if overflow <= 0:
            return
        if self.window == "exact":
            self.start += overflow
        else:
            self.start = self.ids_BT.shape[1] - max(1, self.block_size // 2)
        if self.forget:
            self.ids_BT, self.start = self.ids_BT[:, self.start :], 0
        if self.cache is not None:
            self.cache.rewind(0)


def next_logits(model: Decoder, ids_BT: Tensor) -> Tensor:
    """The whole next-token distribution in one call: ids (B, T) -> logits (B, V), the last block_size tokens seen."""
    with torch.inference_mode():
        return Context(model, ids_BT, use_cache=False).next_logits()
