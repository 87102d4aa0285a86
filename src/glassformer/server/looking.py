"""Logits at any positions of a text, read a piece at a time between the steps of an engine."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any

import torch
from torch import Tensor

from glassformer.generation.sampling import token_logits
from glassformer.layers import RowCache
from glassformer.processors.tokenizers import Tokenizer

PIECE = 512  # tokens read at once: how long those who are being answered wait at the most


class Looker:
    """Reads texts with a `Decoder` and tells its logits. It belongs to one thread.

    It has a cache of one row, as the engine has them, so that the numbers are those that tokens were drawn from, also
    in 8 and 4 bits. What was read last stays: looking at the next token of the same text reads that token alone.

    Logits are those that tokens are drawn from: rows that no token belongs to are left out, or -inf.
    """

    def __init__(self, model: Any, tokenizer: Tokenizer):
        self.model, self.tokenizer = model, tokenizer
        self._cache: RowCache | None = None

    def logits(self, ids: Sequence[int], positions: Sequence[int]) -> Generator[None, None, Tensor]:
        """The logits at `positions` (0 is the first token) of a text, (P, V) in fp32 on the CPU. A generator: `next`
        reads one piece, and what it returns in the end is the answer."""
        cache, self._cache = self._cache, None  # it is put back when all went well
        rows: dict[int, Tensor] = {}
        known, needed = -1, max(positions) + 1
        while known < needed:
            with torch.inference_mode():  # within a piece: it is a matter of the thread, which goes on in between
                if known < 0:
                    cache = cache or self.model.new_row_cache(1, self.model.config.block_size)
                    cache.resize(1, max(needed, cache.capacity))
                    known = min(_shared(cache, ids), *positions)
                    cache.rewind(0, known)
                assert cache is not None
                piece = ids[known : min(known + PIECE, needed)]
                ids_1T = torch.tensor([list(piece)], device=cache.tokens.device)
                hidden_1TC = self.model.hidden(ids_1T, cache=cache.rows(0, 1))
                wanted = sorted({p for p in positions if known <= p < known + len(piece)})
                if wanted:
                    logits_1PV = self.model.logits(hidden_1TC[:, [p - known for p in wanted]])
                    logits_PV = token_logits(logits_1PV[0], self.tokenizer.vocab_size, self.tokenizer.missing_ids)
                    rows |= zip(wanted, logits_PV.cpu(), strict=True)
                known += len(piece)
            if known < needed:
                yield
        self._cache = cache
        return torch.stack([rows[p] for p in positions])


def _shared(cache: RowCache, ids: Sequence[int]) -> int:
    """How many tokens at the beginning of a text the cache holds."""
    n = min(cache.lengths[0], len(ids))
    differs = (cache.tokens[0, :n].cpu() != torch.tensor(list(ids[:n]))).nonzero()
    return int(differs[0]) if len(differs) else n
